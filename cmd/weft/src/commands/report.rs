//! Prints everything known, or what a template asks for.

use clap::{Args, Subcommand};
use minijinja::{Environment, UndefinedBehavior};
use weft_api::Client;
use weft_api::status::Status;
use weft_types::{Code, ExitCode, Problem};

use crate::context::Context;
use crate::fault::broken;
use crate::output::{Outcome, Output};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print everything known, or what a template asks for
    Report(ReportArgs),
}

/// Of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// What to print, e.g. '{{.node.nickname}}' or '{% for p in peers %}{{ p.nickname }} {% endfor %}'
    #[arg(short = 'f', long, env = "WEFT_FORMAT", value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let Self::Report(args) = self;
        context.with_router(async |router| report(&router, &args).await)
    }
}

/// Prints the whole status, or what a template makes of it.
async fn report(router: &Client, args: &ReportArgs) -> Outcome {
    let status = router.status().await?;
    let text = match &args.format {
        None => {
            serde_json::to_string_pretty(&status).map_err(broken("the status cannot be written"))?
        }
        Some(template) => fill(template, &status)?,
    };
    Output::plain(&text);
    Ok(ExitCode::Ok)
}

/// Fills a template.
fn fill(template: &str, status: &Status) -> Result<String, Problem> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let values = minijinja::value::Serde(status);
    let filled = environment.render_str(&undotted(template), values);
    filled.map_err(|error| unfit(&error))
}

fn unfit(error: &minijinja::Error) -> Problem {
    let error = error.to_string();
    Problem::new(Code::Usage, "the template cannot be filled")
        .why(error.lines().next().unwrap_or_default())
        .fix("See the names of all fields: weft report")
}

/// Writes `{{field}}` for `{{.field}}`, as Weave Net's reports are written.
fn undotted(template: &str) -> String {
    let mut plain = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        let (before, after) = rest.split_at(at + 2);
        plain.push_str(before);
        let trimmed = after.trim_start();
        rest = trimmed.strip_prefix('.').unwrap_or(after);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::status::sample;

    #[test]
    fn a_template_may_be_written_as_in_weave_or_as_in_jinja() {
        let status = sample();

        for template in [
            "{{.node.nickname}}",
            "{{ .node.nickname }}",
            "{{ node.nickname }}",
        ] {
            assert_eq!(fill(template, &status).unwrap(), "b", "{template}");
        }
        let list = "{% for p in peers %}{{ p.nickname }},{% endfor %}";
        assert_eq!(fill(list, &status).unwrap(), "a,c,");
    }

    #[test]
    fn a_wrong_template_is_a_matter_of_usage() {
        for template in ["{{.node.nonsense}}", "{{", "{% for %}"] {
            assert_eq!(
                fill(template, &sample()).unwrap_err().code,
                Code::Usage,
                "{template}"
            );
        }
    }
}
