//! Filters in pcap's syntax (pcap-filter(7)): `tcpdump` compiles them to classic BPF, which is run here over each
//! packet and over what it carries.

use std::process::Command;

use super::carried::Carried;
use super::record::Passage;

/// Instructions of a filter, at most: as many as the kernel takes from a socket.
const LONGEST: usize = 4096;
/// Words of memory.
const MEMORY: usize = 16;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The compiler is not there.
    #[error("a filter needs tcpdump, which compiles it ({0}): apt-get install tcpdump")]
    NoCompiler(std::io::Error),
    /// The compiler refused.
    #[error("{0:?}: {1}")]
    Refused(String, String),
    /// What the compiler printed is no filter.
    #[error("tcpdump printed what is no filter: {0:?}")]
    NotAFilter(String),
}

/// A filter: a program of classic BPF whose jumps all lead forward and stay inside, so that it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Vec<Instruction>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: usize,
    if_false: usize,
    value: u32,
}

impl Filter {
    /// Compiles an expression.
    ///
    /// # Errors
    /// See [`FilterError`].
    pub fn compile(expression: &str) -> Result<Self, FilterError> {
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-ddd", "-y", "EN10MB", "--", expression]);
        let output = tcpdump.output().map_err(FilterError::NoCompiler)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or_default();
            return Err(FilterError::Refused(expression.to_owned(), last.to_owned()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Self::parse(&text).ok_or_else(|| FilterError::NotAFilter(text.chars().take(80).collect()))
    }

    /// From the form that `tcpdump -ddd` prints: a count, then an instruction a line.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let count: usize = lines.next()?.trim().parse().ok()?;
        if count == 0 || count > LONGEST {
            return None;
        }
        let instructions: Vec<_> = lines
            .by_ref()
            .take(count)
            .map(Instruction::parse)
            .collect::<Option<_>>()?;
        let is_whole = instructions.len() == count && lines.next().is_none();
        let is_sound = instructions
            .iter()
            .enumerate()
            .all(|(at, instruction)| instruction.stays_inside(at, count));
        (is_whole && is_sound).then_some(Self(instructions))
    }

    /// Whether it takes a packet, before or after its program, or what that carries.
    #[must_use]
    pub fn takes(&self, passage: &Passage) -> bool {
        passage.snapshots().any(|(_, snapshot)| {
            let carried = || Carried::of(&snapshot.octets).map(|carried| carried.frame());
            self.run(&snapshot.octets, snapshot.length)
                || carried().is_some_and(|frame| {
                    let cut = snapshot.length.saturating_sub(length(&snapshot.octets));
                    self.run(&frame, length(&frame).saturating_add(cut))
                })
        })
    }

    /// Runs it over a frame that had `total` octets, as the kernel would. A load from behind the end refuses the frame.
    fn run(&self, frame: &[u8], total: u32) -> bool {
        let mut machine = Machine {
            frame,
            total,
            a: 0,
            x: 0,
            memory: [0; MEMORY],
        };
        let mut at = 0;
        while let Some(instruction) = self.0.get(at) {
            match machine.step(instruction) {
                Some(Step::Go(on)) => at += 1 + on,
                Some(Step::Done(taken)) => return taken,
                None => return false,
            }
        }
        false
    }
}

fn length(octets: &[u8]) -> u32 {
    u32::try_from(octets.len()).unwrap_or(u32::MAX)
}

impl Instruction {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut number = || words.next()?.parse::<u32>().ok();
        let (code, if_true, if_false, value) = (number()?, number()?, number()?, number()?);
        Some(Self {
            code: code.try_into().ok()?,
            if_true: u8::try_from(if_true).ok()?.into(),
            if_false: u8::try_from(if_false).ok()?.into(),
            value,
        })
    }

    fn stays_inside(&self, at: usize, count: usize) -> bool {
        let room = count - at - 1;
        match self.code & 0x07 {
            RETURN => true,
            JUMP if self.code & 0xf0 == 0 => usize::try_from(self.value).is_ok_and(|on| on < room),
            JUMP => self.if_true < room && self.if_false < room,
            _ => room > 0,
        }
    }
}

/// Classes of instructions (linux/bpf_common.h).
const LOAD: u16 = 0;
const LOAD_X: u16 = 1;
const STORE: u16 = 2;
const STORE_X: u16 = 3;
const ARITHMETIC: u16 = 4;
const JUMP: u16 = 5;
const RETURN: u16 = 6;

enum Step {
    Go(usize),
    Done(bool),
}

/// Classic BPF's two registers, its memory, and the frame.
struct Machine<'f> {
    frame: &'f [u8],
    total: u32,
    a: u32,
    x: u32,
    memory: [u32; MEMORY],
}

impl Machine<'_> {
    /// `None`: a load from behind the end, a division by zero, or no instruction.
    fn step(&mut self, instruction: &Instruction) -> Option<Step> {
        let Instruction { code, value, .. } = *instruction;
        match code & 0x07 {
            LOAD => self.a = self.load(code, value)?,
            LOAD_X => self.x = self.load(code, value)?,
            STORE => *self.memory.get_mut(value as usize)? = self.a,
            STORE_X => *self.memory.get_mut(value as usize)? = self.x,
            ARITHMETIC => self.a = self.compute(code, value)?,
            JUMP => return Some(Step::Go(self.jump(instruction)?)),
            RETURN => {
                let kept = if code & 0x18 == 0x10 { self.a } else { value };
                return Some(Step::Done(kept != 0));
            }
            _ if code & 0x80 == 0 => self.x = self.a,
            _ => self.a = self.x,
        }
        Some(Step::Go(0))
    }

    fn load(&self, code: u16, value: u32) -> Option<u32> {
        match code & 0xe0 {
            0x00 => Some(value),
            0x20 => self.octets(code, value),
            0x40 => self.octets(code, self.x.checked_add(value)?),
            0x60 => self.memory.get(value as usize).copied(),
            0x80 => Some(self.total),
            // The length of an IPv4 header.
            0xa0 => Some((self.octets(0x10, value)? & 15) * 4),
            _ => None,
        }
    }

    /// A word, half or octet of the frame, by the instruction's size.
    fn octets(&self, code: u16, at: u32) -> Option<u32> {
        let rest = self.frame.get(usize::try_from(at).ok()?..)?;
        match code & 0x18 {
            0x00 => rest.first_chunk().copied().map(u32::from_be_bytes),
            0x08 => rest
                .first_chunk()
                .copied()
                .map(|half| u16::from_be_bytes(half).into()),
            0x10 => rest.first().copied().map(u32::from),
            _ => None,
        }
    }

    const fn operand(&self, code: u16, value: u32) -> u32 {
        if code & 0x08 == 0 { value } else { self.x }
    }

    fn compute(&self, code: u16, value: u32) -> Option<u32> {
        let (a, b) = (self.a, self.operand(code, value));
        match code & 0xf0 {
            0x00 => Some(a.wrapping_add(b)),
            0x10 => Some(a.wrapping_sub(b)),
            0x20 => Some(a.wrapping_mul(b)),
            0x30 => a.checked_div(b),
            0x40 => Some(a | b),
            0x50 => Some(a & b),
            0x60 => Some(a.checked_shl(b).unwrap_or(0)),
            0x70 => Some(a.checked_shr(b).unwrap_or(0)),
            0x80 => Some(a.wrapping_neg()),
            0x90 => a.checked_rem(b),
            0xa0 => Some(a ^ b),
            _ => None,
        }
    }

    fn jump(&self, instruction: &Instruction) -> Option<usize> {
        let (a, b) = (self.a, self.operand(instruction.code, instruction.value));
        let is_so = match instruction.code & 0xf0 {
            0x00 => return usize::try_from(instruction.value).ok(),
            0x10 => a == b,
            0x20 => a > b,
            0x30 => a >= b,
            0x40 => a & b != 0,
            _ => return None,
        };
        Some(if is_so {
            instruction.if_true
        } else {
            instruction.if_false
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `tcpdump -y EN10MB -ddd 'udp port 6081'` of libpcap 1.10 prints.
    const UDP_PORT: &str = include_str!("filter/udp_port.txt");

    fn udp(port: u16) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[23] = 17;
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn a_compiled_filter_is_run_as_the_kernel_would() {
        let filter = Filter::parse(UDP_PORT).unwrap();
        assert!(filter.run(&udp(6081), 60));
        assert!(!filter.run(&udp(6082), 60));
        assert!(!filter.run(&udp(6081)[..37], 60), "the port is cut off");
        assert!(!filter.run(&[], 0));
    }

    #[test]
    fn what_leads_outside_is_no_filter() {
        for text in [
            "",
            "0",
            "1",
            "1\n6 0 0 1\n6 0 0 1",
            "2\n6 0 0 1",
            "1\n5 0 0 0",
            "2\n5 0 0 4294967295\n6 0 0 1",
            "2\n21 1 0 5\n6 0 0 1",
            "1\n40 0 0 12",
            "1\n70000 0 0 1",
            "1\n6 256 0 1",
            "5000\n",
        ] {
            assert_eq!(Filter::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn odd_instructions_refuse_the_packet() {
        for first in [
            "48 0 0 4294967295",
            "80 0 0 9",
            "96 0 0 16",
            "52 0 0 0",
            "2 0 0 16",
            "197 0 0 0",
        ] {
            let filter = Filter::parse(&format!("2\n{first}\n6 0 0 1")).unwrap();
            assert!(!filter.run(&[1, 2, 3], 3), "{first}");
        }
    }
}
