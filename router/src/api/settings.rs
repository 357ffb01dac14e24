//! Tells what the router was told at its start.

use weft_api::settings::SETTINGS;

use super::handle::Api;
use super::routes::Routes;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.on(
        SETTINGS,
        |api: Api| async move { Ok(api.settings().clone()) },
    )
}
