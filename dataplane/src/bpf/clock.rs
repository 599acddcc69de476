//! The kernel's coarse clock, which the programs stamp with.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::sys;

/// Jiffies, as `bpf_jiffies64` returns them: userland has no other way to read them.
#[derive(Debug)]
pub struct Clock {
    program: OwnedFd,
    hz: u64,
}

/// Ticks a second that Linux can be built with.
const RATES: [u64; 4] = [100, 250, 300, 1000];
/// How long a tick is measured.
const MEASURE: Duration = Duration::from_millis(100);

impl Clock {
    /// Loads the program that reads the clock, and measures how fast it ticks; takes a tenth of a second.
    ///
    /// # Errors
    /// `Io`.
    pub fn new() -> Result<Self> {
        let program = sys::load_classifier(&INSTRUCTIONS).map_err(Error::io("load the clock's program"))?;
        let mut clock = Self { program, hz: 0 };
        let (first, start) = (clock.jiffies()?, Instant::now());
        std::thread::sleep(MEASURE);
        let (ticks, took) = (clock.jiffies()? - first, start.elapsed());
        clock.hz = nearest(ticks, took);
        Ok(clock)
    }

    /// Now.
    ///
    /// # Errors
    /// `Io`.
    pub fn jiffies(&self) -> Result<u64> {
        let mut out = [0; 64];
        sys::test_run(self.program.as_fd(), &[0; 64], &[], 1, &mut out)
            .map_err(Error::io("read the kernel's clock"))?;
        let mut now = [0; 8];
        now.copy_from_slice(&out[..8]);
        Ok(u64::from_ne_bytes(now))
    }

    /// Ticks a second.
    #[must_use]
    pub fn hz(&self) -> u64 {
        self.hz
    }

    /// A duration in jiffies, rounded up.
    #[must_use]
    pub fn ticks(&self, duration: Duration) -> u64 {
        let ticks = (duration.as_micros() * u128::from(self.hz)).div_ceil(1_000_000);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Jiffies as a duration.
    #[must_use]
    pub fn duration(&self, ticks: u64) -> Duration {
        Duration::from_millis(ticks.saturating_mul(1000) / self.hz.max(1))
    }
}

/// The rate that explains so many ticks best.
fn nearest(ticks: u64, took: Duration) -> u64 {
    let distance = |hz: u64| {
        let expected = u128::from(hz) * took.as_micros() / 1_000_000;
        expected.abs_diff(u128::from(ticks))
    };
    RATES.into_iter().min_by_key(|hz| distance(*hz)).unwrap_or(250)
}

/// An instruction: opcode, destination and source register, offset, immediate.
const fn instruction(opcode: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    let offset = offset.cast_unsigned() as u64;
    opcode as u64 | (registers as u64) << 8 | offset << 16 | (immediate.cast_unsigned() as u64) << 32
}

/// Stores jiffies into the packet's first eight octets.
const INSTRUCTIONS: [u64; 10] = [
    instruction(0xbf, 0x16, 0, 0),  // r6 = r1
    instruction(0x85, 0, 0, 118),   // r0 = bpf_jiffies64()
    instruction(0x61, 0x62, 76, 0), // r2 = skb->data
    instruction(0x61, 0x63, 80, 0), // r3 = skb->data_end
    instruction(0xbf, 0x24, 0, 0),  // r4 = r2
    instruction(0x07, 0x04, 0, 8),  // r4 += 8
    instruction(0x2d, 0x34, 1, 0),  // if r4 > r3 goto +1
    instruction(0x7b, 0x02, 0, 0),  // *(u64 *)r2 = r0
    instruction(0xb7, 0x00, 0, 0),  // r0 = 0
    instruction(0x95, 0, 0, 0),     // exit
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_told_apart() {
        for hz in RATES {
            for off in [-1, 0, 1] {
                let ticks = (hz / 10).saturating_add_signed(off);
                assert_eq!(nearest(ticks, MEASURE), hz);
            }
        }
    }
}
