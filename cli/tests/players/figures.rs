//! Medians beside what they may be, in one table.

use std::time::Duration;

use super::failover::Failover;

/// Where something was measured several times.
struct Row {
    what: String,
    /// In order.
    times: Vec<Duration>,
    bound: Duration,
}

/// All that a soak measured.
#[derive(Default)]
pub(super) struct Figures(Vec<Row>);

impl Figures {
    /// Adds what was measured; its median must be below `bound`.
    pub(super) fn add(&mut self, what: &str, mut times: Vec<Duration>, bound: Duration) {
        times.sort_unstable();
        println!("{what}: {times:?}");
        self.0.push(Row {
            what: what.to_owned(),
            times,
            bound,
        });
    }

    /// Adds the gaps of failovers, each way; beside the round trip from the sender to the relay they may be `bound`.
    pub(super) fn add_gaps(&mut self, what: &str, failed: &[Failover], bound: Duration) {
        for (way, name) in ["towards the server", "back"].into_iter().enumerate() {
            let trips = failed.iter().map(|failed| failed.trips[way].unwrap()).collect();
            let gaps = failed.iter().map(|failed| failed.gaps[way]).collect();
            self.add(&format!("{what}, {name}"), gaps, bound + median(trips));
        }
    }

    /// Prints them all; then each median must be below its bound.
    pub(super) fn judge(&self) {
        println!("{:<56} {:>9} {:>9} {:>9}  OF", "WHAT", "MEDIAN", "BOUND", "WORST");
        for row in &self.0 {
            let [middle, bound, worst] = [row.median(), row.bound, row.times[row.times.len() - 1]]
                .map(|time| format!("{:.3} s", time.as_secs_f64()));
            println!(
                "{:<56} {middle:>9} {bound:>9} {worst:>9}  {}",
                row.what,
                row.times.len()
            );
        }
        let above: Vec<&str> = self
            .0
            .iter()
            .filter(|row| row.median() >= row.bound)
            .map(|row| row.what.as_str())
            .collect();
        assert!(above.is_empty(), "not below the bound: {above:?}");
    }
}

impl Row {
    fn median(&self) -> Duration {
        median(self.times.clone())
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
