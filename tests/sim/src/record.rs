//! Records a run.

use crate::recorder::{Record, Recorder};
use crate::world::Sim;

impl Sim {
    /// An empty world that notes what happens; with `text` every line of it.
    pub fn recorded(seed: u64, text: bool) -> Self {
        let mut sim = Self::new(seed);
        sim.recorder = Some(Recorder::new(text));
        sim
    }

    /// What was noted until here, and how everybody sees the mesh.
    ///
    /// # Panics
    ///
    /// If nothing is noted: the world was not made by [`Self::recorded`].
    pub fn record(&self) -> Record {
        let recorder = self.recorder.as_ref();
        let recorder = recorder.unwrap_or_else(|| panic!("seed {}: not recorded", self.seed));
        let cores = self
            .indices()
            .filter_map(|n| Some((n, self.node(n).core.as_ref()?)));
        recorder.close(cores)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::node::NodeIndex;
    use crate::recorder::LASTING;
    use weft_router_proto::io::{Command, Event, Output};
    use weft_types::{MacAddr, NodeId};

    const SECOND: Duration = Duration::from_secs(1);

    /// Three nodes, a container on one of them, and so many frames from one to another.
    fn run(seed: u64, last_byte: u8, frames: usize) -> Record {
        let mut sim = Sim::recorded(seed, true);
        let nodes = sim.grow(&[None, None]);
        let attach = Command::Attach {
            mac: MacAddr::new([2, 0, 0, 0, 0, last_byte]),
            addresses: vec!["10.40.0.1/12".parse().expect("a network")],
            port: "p".to_owned(),
        };
        sim.command(nodes[1], attach);
        for _ in 0..frames {
            sim.frame(nodes[0], nodes[1]);
        }
        sim.run(3 * SECOND);
        sim.record()
    }

    fn column<'a>(record: &'a Record, name: &str) -> &'a str {
        let of = |column: &'a str| column.strip_prefix(name)?.strip_prefix('=');
        let columns = record.columns.split(' ');
        columns.filter_map(of).next().expect("a column")
    }

    /// The names of the columns that differ.
    fn different(one: &Record, other: &Record) -> BTreeSet<String> {
        let columns = |record: &Record| -> BTreeSet<String> {
            record.columns.split(' ').map(str::to_owned).collect()
        };
        let differing = &columns(one) ^ &columns(other);
        let name = |column: &String| column.split('=').next().map(str::to_owned);
        differing.iter().filter_map(name).collect()
    }

    #[test]
    fn a_run_is_a_function_of_its_seed_to_the_last_byte() {
        let [first, again, other] = [7, 7, 8].map(|seed| run(seed, 1, 5));

        assert_eq!(first, again);
        assert!(different(&first, &other).contains("all"));
    }

    #[test]
    fn the_text_has_every_output_and_says_how_it_ended() {
        let record = run(7, 1, 5);

        let all = column(&record, "all").split(':').next();
        let timed = record.text.lines().filter(|line| !line.starts_with('n'));
        assert_eq!(all, Some(timed.count().to_string().as_str()));
        for part in [
            " n1 frame of n0 number 5\n",
            " n2 event member joined n1 n1 \n",
            "\nn2 knows member n1 n1 ",
            "\nn2 knows n1 links n0 n2\n",
            "\nn2 knows n1 record n1 [192.0.0.2:6783] ",
            "\nn2 knows endpoint n1 0 02:00:00:00:00:01 [10.40.0.1] attached \n",
        ] {
            assert!(record.text.contains(part), "no {part:?}: {}", record.text);
        }
    }

    #[test]
    fn another_container_shows_in_the_registers_and_in_nothing_else_that_lasts() {
        let differing = different(&run(7, 1, 5), &run(7, 2, 5));

        let lasting = LASTING.into_iter().filter(|&name| differing.contains(name));
        assert_eq!(lasting.collect::<Vec<_>>(), ["registers"]);
        assert!(differing.contains("snapshot") && differing.contains("save"));
    }

    #[test]
    fn a_frame_more_shows_in_the_frames_and_in_nothing_else_that_lasts() {
        let differing = different(&run(7, 1, 5), &run(7, 1, 6));

        let lasting = LASTING.into_iter().filter(|&name| differing.contains(name));
        assert_eq!(lasting.collect::<Vec<_>>(), ["frames"]);
    }

    #[test]
    fn an_event_s_wording_and_its_order_among_nodes_do_not_last_but_its_subject_does() {
        let id = |n| NodeId::new([n; 32]);
        let down = |node, reason: &str| {
            Output::Event(Event::LinkDown {
                node: id(node),
                reason: reason.to_owned(),
            })
        };
        let columns = |happened: &[(usize, Output)]| {
            let mut sim = Sim::recorded(1, false);
            for (index, output) in happened {
                sim.note(|recorder, at| recorder.output(at, NodeIndex(*index), output));
            }
            sim.record()
        };
        let first = columns(&[(0, down(1, "silent")), (1, down(2, "silent"))]);
        let reworded = columns(&[(1, down(2, "no answer")), (0, down(1, "silent"))]);
        let another = columns(&[(0, down(3, "silent")), (1, down(2, "silent"))]);

        assert_eq!(
            different(&first, &reworded),
            BTreeSet::from(["all".to_owned(), "event".to_owned()])
        );
        assert!(different(&first, &another).contains("events"));
    }

    #[test]
    fn to_record_a_run_does_not_change_it() {
        let end = |mut sim: Sim| {
            let nodes = sim.grow(&[None]);
            sim.run(SECOND);
            (sim.story(&nodes), sim.node(nodes[1]).sent)
        };

        assert_eq!(end(Sim::new(7)), end(Sim::recorded(7, true)));
    }
}
