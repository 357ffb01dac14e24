//! Counts what crosses the underlay. The table below is where a counter is declared: the field that the core or the driver
//! fills, the line of `weft status wire`, the field of its JSON and the metric are made from one line of it, and the tests
//! of the documentation read it.

/// A counter with all that is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its field in JSON.
    pub name: &'static str,
    /// Its metric, without `weft_` before it and `_total` behind.
    pub metric: &'static str,
    /// What it says, without a full stop.
    pub help: &'static str,
    /// Whether an operator sees it first, on the one screen of `weft status`.
    pub first: bool,
    /// How often, since the start.
    pub value: u64,
}

impl Counter {
    /// Its name for people.
    pub fn label(&self) -> String {
        self.name.replace('_', " ")
    }
}

macro_rules! counters {
    ($(#[doc = $help:literal] $(#[$more:meta])* $field:ident: $metric:literal, first = $first:literal;)*) => {
        /// What was counted on the underlay since the start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub struct WireCounters {
            $(#[doc = $help] $(#[$more])* pub $field: u64,)*
        }

        impl WireCounters {
            /// Every counter, in the order in which they are told.
            pub fn table(&self) -> impl Iterator<Item = Counter> {
                [$((stringify!($field), $metric, $help, $first, self.$field),)*]
                    .into_iter()
                    .map(|(name, metric, help, first, value)| Counter {
                        name,
                        metric,
                        help: help.trim().trim_end_matches('.'),
                        first,
                        value,
                    })
            }
        }
    };
}

// A counter that is added here is `#[serde(default)]`: a command reads what an earlier router says.
counters! {
    /// Sessions renewed since the start.
    rekeys: "rekey", first = true;
    /// Datagrams refused because they came before.
    replay_drops: "replay_drop", first = true;
    /// Datagrams refused because nobody here sealed them.
    auth_drops: "auth_drop", first = true;
    /// Control messages of members that could not be read, or came again.
    #[serde(default)]
    bad_payloads: "bad_payloads", first = false;
    /// Handshakes of data sessions that were given up, or did not open: no frame leaves where they fail.
    #[serde(default)]
    handshake_failures: "handshake_failures", first = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_told_with_its_words() {
        let counted = WireCounters {
            replay_drops: 3,
            ..WireCounters::default()
        };

        let told = counted.table().find(|counter| counter.value == 3).unwrap();

        assert_eq!(told.name, "replay_drops");
        assert_eq!(told.label(), "replay drops");
        assert_eq!(told.help, "Datagrams refused because they came before");
    }
}
