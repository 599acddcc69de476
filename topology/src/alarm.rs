//! A leg that loses packets, told from one that does not, with as few packets as can be.

/// What the test has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More packets are needed.
    Undecided,
    /// A line loses at least 5 %.
    Lossy {
        /// Lost in a million, of the packets that decided.
        loss_ppm: u32,
    },
    /// Each line loses at most 0.3 %.
    Clean,
}

/// Wald's sequential probability ratio test (A. Wald, *Sequential Tests of Statistical Hypotheses*, Annals of
/// Mathematical Statistics 16, 1945) of a loss of at least 5 % against at most 0.3 %.
///
/// What is judged are lines, one direction of one leg each, and a packet may have crossed several: a probe of a leg
/// crosses two, there and back, and one of a path over a relay four. So a packet that crossed n lines is lost with
/// p₀ = 1 − 0.997ⁿ where all are clean, and with p₁ = 1 − 0.95 · 0.997ⁿ⁻¹ where one of them is lossy: what is tolerable
/// everywhere does not add up to an alarm.
///
/// Each packet moves the log-likelihood ratio: a lost one by ln(p₁/p₀), another by ln((1 − p₁)/(1 − p₀)). At
/// ln((1 − β)/α) or above a line is lossy, at ln(β/(1 − α)) or below all are clean, and either verdict begins the
/// test anew. α, a false alarm, is 10⁻⁶; β, a lossy line taken for clean, is 10⁻³. Of packets that cross one line,
/// about 155 tell a loss of 5 %, about 175 one of 0.3 %, and 144 that none is lost. What is between costs
/// ([`cost`](crate::cost::cost)), and raises no alarm as a rule: 1 % on one line, once in hours.
///
/// While the alarm is up the question is only when the loss ended, and Page's test answers it soonest (E. S. Page,
/// *Continuous Inspection Schemes*, Biometrika 41, 1954): the ratio never rises above 0, so that what was lost before
/// the end does not have to be made up for, however long it was. As it may so begin anew with each packet, its bound is
/// ln(β′/(1 − α)) with β′ = 10⁻⁴: the alarm falls 191 packets after the last that is lost, and at a loss of 5 %, which
/// goes on, once in more than 10⁵.
#[derive(Clone, Debug, Default)]
pub struct LossAlarm {
    ratio: f64,
    sent: u64,
    lost: u64,
    raised: bool,
}

const CLEAN: f64 = 0.003;
const LOSSY: f64 = 0.05;
const FALSE_ALARM: f64 = 1e-6;
const MISSED: f64 = 1e-3;
/// The same while the alarm is up.
const ENDED: f64 = 1e-4;

impl LossAlarm {
    /// A test that has seen nothing; the alarm is down.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the last verdict was lossy.
    pub fn is_raised(&self) -> bool {
        self.raised
    }

    /// Whether the packets since the last verdict speak for a loss, though not enough.
    pub fn is_suspicious(&self) -> bool {
        self.ratio > 0.0
    }

    /// Takes in packets, data and probes alike: how many were sent, how many of them did not arrive (at most as
    /// many), and how many lines each of them was to cross. They count as a batch, whose order is unknown, so one
    /// batch gives one verdict.
    ///
    /// After [`Verdict::Clean`] the caller restarts the leg's loss window
    /// ([`LegEstimator::restart_loss`](crate::LegEstimator::restart_loss)), so that an outage that is over does
    /// not keep its cost.
    pub fn observe(&mut self, sent: u32, lost: u32, lines: u32) -> Verdict {
        let lost = lost.min(sent);
        self.sent += u64::from(sent);
        self.lost += u64::from(lost);
        let all_but_one = (1.0 - CLEAN).powf(f64::from(lines.saturating_sub(1)));
        let (clean, lossy) = (
            1.0 - all_but_one * (1.0 - CLEAN),
            1.0 - all_but_one * (1.0 - LOSSY),
        );
        self.ratio += f64::from(lost) * (lossy / clean).ln();
        // Of what arrived only the line in question makes a difference.
        self.ratio += f64::from(sent - lost) * ((1.0 - LOSSY) / (1.0 - CLEAN)).ln();
        let missed = if self.raised { ENDED } else { MISSED };
        if self.raised {
            self.ratio = self.ratio.min(0.0);
        }
        if self.ratio >= ((1.0 - MISSED) / FALSE_ALARM).ln() {
            let loss_ppm = u32::try_from(self.lost * 1_000_000 / self.sent).unwrap_or(1_000_000);
            *self = Self {
                raised: true,
                ..Self::default()
            };
            Verdict::Lossy { loss_ppm }
        } else if self.ratio <= (missed / (1.0 - FALSE_ALARM)).ln() {
            *self = Self::default();
            Verdict::Clean
        } else {
            Verdict::Undecided
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::seeded::Seeded;

    /// Packets until a verdict, at this loss in a million.
    fn run(alarm: &mut LossAlarm, random: &mut Seeded, loss_ppm: u32) -> (u32, Verdict) {
        let mut packets = 0;
        loop {
            packets += 1;
            let verdict = alarm.observe(1, u32::from(random.below(1_000_000) < loss_ppm), 1);
            if verdict != Verdict::Undecided {
                return (packets, verdict);
            }
        }
    }

    #[test]
    fn five_percent_is_told_in_about_155_packets() {
        let mut random = Seeded::new(3);
        let runs: Vec<_> = (0..400)
            .map(|_| run(&mut LossAlarm::new(), &mut random, 50_000))
            .collect();
        let lossy: Vec<_> = runs
            .iter()
            .filter(|(_, v)| matches!(v, Verdict::Lossy { .. }))
            .collect();
        let mean = lossy.iter().map(|(packets, _)| packets).sum::<u32>() / 400;
        assert!(
            lossy.len() > 390 && (130..190).contains(&mean),
            "{} of 400, mean {mean}",
            lossy.len()
        );
    }

    #[test]
    fn a_tenth_of_a_percent_raises_none_in_a_million_packets() {
        let (mut random, mut alarm) = (Seeded::new(4), LossAlarm::new());
        let mut packets = 0;
        while packets < 1_000_000 {
            let (more, verdict) = run(&mut alarm, &mut random, 1_000);
            assert_eq!(verdict, Verdict::Clean);
            packets += more;
        }
    }

    #[test]
    fn what_is_tolerable_on_each_line_raises_none_on_a_path() {
        for lines in [2, 4, 8] {
            let (mut random, mut alarm) = (Seeded::new(5), LossAlarm::new());
            for _ in 0..300_000 {
                let lost = (0..lines).any(|_| random.below(1_000_000) < 3_000);
                let verdict = alarm.observe(1, u32::from(lost), lines);
                assert!(!matches!(verdict, Verdict::Lossy { .. }), "{lines} lines");
            }
            let mut packets = 0;
            while !alarm.is_raised() {
                packets += 1;
                let lost =
                    random.below(1_000_000) < 50_000 || (1..lines).any(|_| random.below(1_000_000) < 3_000);
                alarm.observe(1, u32::from(lost), lines);
            }
            println!("{lines} lines, one of which loses 5 %: told after {packets} packets");
            assert!(packets < 1_500, "{lines} lines: {packets}");
        }
    }

    #[test]
    fn the_alarm_falls_when_the_leg_is_clean_again() {
        let mut alarm = LossAlarm::new();
        assert_eq!(alarm.observe(20, 10, 1), Verdict::Lossy { loss_ppm: 500_000 });
        assert!(alarm.is_raised());
        for _ in 0..100 {
            assert_eq!(alarm.observe(1, 1, 1), Verdict::Undecided);
        }
        assert_eq!(alarm.observe(190, 0, 1), Verdict::Undecided);
        assert!(alarm.is_raised());
        assert_eq!(alarm.observe(1, 0, 1), Verdict::Clean);
        assert!(!alarm.is_raised());
    }

    #[test]
    fn the_alarm_stands_while_the_loss_goes_on() {
        let (mut random, mut alarm) = (Seeded::new(6), LossAlarm::new());
        let packets = 2_000_000;
        let mut fallen = 0;
        for _ in 0..packets {
            let was_raised = alarm.is_raised();
            alarm.observe(1, u32::from(random.below(1_000_000) < 50_000), 1);
            fallen += u32::from(was_raised && !alarm.is_raised());
        }
        println!("fell {fallen} times in {packets} packets");
        assert!(fallen <= packets / 100_000);
    }

    #[test]
    fn one_loss_is_suspicious_for_59_packets() {
        let mut alarm = LossAlarm::new();
        assert!(!alarm.is_suspicious());
        alarm.observe(1, 1, 1);
        alarm.observe(58, 0, 1);
        assert!(alarm.is_suspicious());
        alarm.observe(1, 0, 1);
        assert!(!alarm.is_suspicious());
    }
}
