//! Formats events, and leaves out those of which there are too many.

use std::fmt::{self, Debug};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::limit::{Limiter, Said, Verdict, lock, with_count};

/// Fields that say whom a line is about.
const KEYS: [&str; 5] = ["code", "from", "node", "peer", "source"];

/// Formats events as another format does, and leaves out those of which there are too many. What a person has asked for
/// with `debug` or `trace` is all said.
pub(super) struct Brief<F> {
    format: F,
    limiter: Arc<Mutex<Limiter>>,
}

impl<F> Brief<F> {
    pub(super) const fn new(format: F, limiter: Arc<Mutex<Limiter>>) -> Self {
        Self { format, limiter }
    }
}

impl<S, N, F> FormatEvent<S, N> for Brief<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if *event.metadata().level() > Level::INFO {
            return self.format.format_event(context, writer, event);
        }
        let (said, now) = (said(event), Instant::now());
        let verdict = lock(&self.limiter).consider(said, now);
        let mut line = String::new();
        self.format
            .format_event(context, Writer::new(&mut line), event)?;
        match verdict {
            Verdict::LeaveOut => {
                lock(&self.limiter).keep(said, &line, now);
                Ok(())
            }
            Verdict::Say(left_out) => writer.write_str(&with_count(&line, left_out)),
        }
    }
}

fn said(event: &Event<'_>) -> Said {
    let kind = hash(&event.metadata().callsite());
    let mut fields = Fields::default();
    event.record(&mut fields);
    let mut line = DefaultHasher::new();
    (kind, fields.all.finish()).hash(&mut line);
    Said {
        kind,
        key: fields.key.map_or(0, |key| key.finish()),
        line: line.finish(),
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Reads what an event says.
#[derive(Default)]
struct Fields {
    all: DefaultHasher,
    key: Option<DefaultHasher>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        (field.name(), &value).hash(&mut self.all);
        if KEYS.contains(&field.name()) {
            (field.name(), &value).hash(self.key.get_or_insert_default());
        }
    }
}
