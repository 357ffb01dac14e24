//! Writes series in the two formats that Prometheus reads: its text format, and OpenMetrics where it is asked for.
//!
//! They differ in the name of a counter's family (`x_total`, `x`) and in the last line. A family is told of even where it
//! has no series at the moment: what there may be is known at the first scrape.

use std::fmt::{self, Write};

/// How series are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's own, 0.0.4: what everything reads.
    Text,
}

impl Format {
    /// What a reader asks for by the header `Accept`.
    pub(super) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// What the answer is.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What the numbers of a family do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They grow, from the start of the process on.
    Counter,
    /// They come and go.
    Gauge,
}

impl Kind {
    /// Its word.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// Series of one name.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) kind: Kind,
    help: String,
    /// What its labels are called.
    pub(super) labels: &'static [&'static str],
    series: Vec<(Vec<String>, f64)>,
}

impl Family {
    /// A counter, whose name ends in `_total`.
    pub(super) fn counter(name: &str, help: &str, labels: &'static [&'static str]) -> Self {
        Self::new(format!("{name}_total"), Kind::Counter, help, labels)
    }

    /// A gauge.
    pub(super) fn gauge(name: &str, help: &str, labels: &'static [&'static str]) -> Self {
        Self::new(name.to_owned(), Kind::Gauge, help, labels)
    }

    fn new(name: String, kind: Kind, help: &str, labels: &'static [&'static str]) -> Self {
        Self {
            name,
            kind,
            help: help.to_owned(),
            labels,
            series: Vec::new(),
        }
    }

    /// Adds a series: what its labels say, in their order, and its number.
    pub(super) fn add<const N: usize>(&mut self, labels: [&str; N], value: f64) {
        debug_assert_eq!(N, self.labels.len(), "{}", self.name);
        let labels = labels.map(str::to_owned).to_vec();
        self.series.push((labels, value));
    }

    /// With one series, without labels.
    pub(super) fn single(mut self, value: f64) -> Self {
        self.add([], value);
        self
    }

    fn write(&self, page: &mut String, format: Format) -> fmt::Result {
        let name = match format {
            Format::OpenMetrics => self.name.strip_suffix("_total").unwrap_or(&self.name),
            Format::Text => &self.name,
        };
        writeln!(page, "# HELP {name} {}", escaped(&self.help))?;
        writeln!(page, "# TYPE {name} {}", self.kind.name())?;
        for (values, value) in &self.series {
            let labels = self.labels.iter().zip(values);
            let labels: Vec<String> = labels
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let labels = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", labels.join(",")),
            };
            writeln!(page, "{}{labels} {value}", self.name)?;
        }
        Ok(())
    }
}

/// A whole page.
pub(super) fn page(families: &[Family], format: Format) -> Result<String, fmt::Error> {
    let mut page = String::new();
    for family in families {
        family.write(&mut page, format)?;
    }
    if format == Format::OpenMetrics {
        page.push_str("# EOF\n");
    }
    Ok(page)
}

/// What ends neither a line nor a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Family> {
        let mut drops = Family::counter("weft_drops", "Dropped", &["reason"]);
        drops.add(["a\"b\\c\n"], 3.0);
        let members = Family::gauge("weft_members", "Members", &[]).single(2.0);
        vec![drops, members]
    }

    #[test]
    fn the_text_format_names_a_counter_in_full() {
        let page = page(&sample(), Format::Text).unwrap();

        assert_eq!(
            page,
            "# HELP weft_drops_total Dropped\n\
             # TYPE weft_drops_total counter\n\
             weft_drops_total{reason=\"a\\\"b\\\\c\\n\"} 3\n\
             # HELP weft_members Members\n\
             # TYPE weft_members gauge\n\
             weft_members 2\n"
        );
    }

    #[test]
    fn openmetrics_names_its_family_and_ends() {
        let page = page(&sample(), Format::OpenMetrics).unwrap();

        assert!(page.starts_with("# HELP weft_drops Dropped\n# TYPE weft_drops counter\n"));
        assert!(page.contains("weft_drops_total{"), "{page}");
        assert!(page.ends_with("weft_members 2\n# EOF\n"), "{page}");
    }

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";

        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::Text);
        assert_eq!(Format::accepted(""), Format::Text);
    }
}
