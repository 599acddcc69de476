//! `bench/bpf/restore.s`: the packet is written anew before each run, and the programs to calibrate by.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, Map as Kind};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use kuafu_dataplane::bpf::Map;

use super::packet::CARRIED;

/// Octets of an entry of the map `frame`: the packet, filled up to a multiple of eight.
const ENTRY: usize = CARRIED.next_multiple_of(8);
/// Octets that any program leaves at most.
const ROOM: usize = 256;
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/restore.o");

/// What a wrapped program did.
pub(super) struct Run {
    /// `XDP_…`.
    pub(super) verdict: u32,
    /// The packet as it left it.
    pub(super) packet: Vec<u8>,
    /// A run with the wrapper, on average.
    pub(super) nanoseconds: f64,
}

/// What every run begins with.
#[derive(Default)]
pub(super) struct Start {
    pub(super) packet: Vec<u8>,
    /// For `restore_exit`: what the packet's numbers are in turn.
    pub(super) numbers: Vec<[u64; 2]>,
    /// For `restore_flows`: from how many clients the packet comes in turn, a power of two of at most 2^32.
    pub(super) clients: u64,
}

impl Start {
    /// The same packet each time.
    pub(super) fn with(packet: Vec<u8>) -> Self {
        Self {
            packet,
            ..Self::default()
        }
    }
}

/// The wrapper around one program.
pub(super) struct Wrapper {
    object: Ebpf,
    programs: Map<u32, u32>,
    /// How the packet is restored: a program's name.
    restore: &'static str,
    octets: usize,
    interface: u32,
}

impl Wrapper {
    /// Loads wrapper and calibrating programs, with what every run begins with.
    pub(super) fn new(restore: &'static str, start: &Start, interface: u32) -> Result<Self> {
        let mut object = Ebpf::load(OBJECT).context("cannot load bench/bpf/restore.o")?;
        for name in [restore, "passes", "forwards"] {
            program(&mut object, name)?
                .load()
                .with_context(|| format!("the kernel refuses the program {name}"))?;
        }
        let mut entry = [0; ENTRY];
        let packet = &start.packet;
        let octets = entry.get_mut(..packet.len()).context("a longer packet")?;
        octets.copy_from_slice(packet);
        let frame = object.map_mut("frame").context("restore.o has no map frame")?;
        Array::<_, [u8; ENTRY]>::try_from(frame)?.set(0, entry, 0)?;
        let turns = object.map_mut("turns").context("restore.o has no map turns")?;
        let mut turns = Array::<_, [u64; 2]>::try_from(turns)?;
        for (turn, numbers) in (0..).zip(&start.numbers) {
            turns.set(turn, *numbers, 0)?;
        }
        let turn = object.map_mut("turn").context("restore.o has no map turn")?;
        let mut turn = Array::<_, [u64; 2]>::try_from(turn)?;
        turn.set(0, [0, start.clients.saturating_sub(1)], 0)?;
        let programs = Map::new("programs", programs_fd(&object)?)?;
        Ok(Self {
            object,
            programs,
            restore,
            octets: packet.len(),
            interface,
        })
    }

    /// Wraps one of the object's own programs.
    pub(super) fn wrap_own(&mut self, name: &str) -> Result<()> {
        let fd = program(&mut self.object, name)?.fd()?.as_fd().as_raw_fd();
        self.set(fd)
    }

    /// Wraps a program.
    pub(super) fn wrap(&self, program: impl AsFd) -> Result<()> {
        self.set(program.as_fd().as_raw_fd())
    }

    fn set(&self, fd: i32) -> Result<()> {
        Ok(self.programs.set(&0, &u32::try_from(fd)?)?)
    }

    /// Runs what is wrapped so often.
    pub(super) fn run(&mut self, repeat: u32) -> Result<Run> {
        let (input, context) = (vec![0; self.octets], self.context()?);
        let mut packet = vec![0; ROOM];
        let restore = program(&mut self.object, self.restore)?;
        let result = restore.test_run(TestRunOptions {
            data_in: Some(&input),
            data_out: Some(&mut packet),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        })?;
        let octets = result.data_size_out as usize;
        ensure!(octets <= ROOM, "the packet has {octets} octets afterwards");
        packet.truncate(octets);
        Ok(Run {
            verdict: result.return_value,
            packet,
            nanoseconds: result.duration.as_secs_f64() * 1e9,
        })
    }

    /// `struct xdp_md`: where the packet ends, and the interface on which it arrives.
    fn context(&self) -> Result<[u8; 24]> {
        let mut context = [0; 24];
        context[4..8].copy_from_slice(&u32::try_from(self.octets)?.to_ne_bytes());
        context[12..16].copy_from_slice(&self.interface.to_ne_bytes());
        Ok(context)
    }
}

fn program<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut Xdp> {
    let program = object.program_mut(name);
    let program = program.with_context(|| format!("restore.o has no program {name}"))?;
    Ok(program.try_into()?)
}

fn programs_fd(object: &Ebpf) -> Result<OwnedFd> {
    let Some(Kind::ProgramArray(data)) = object.map("programs") else {
        anyhow::bail!("restore.o has no array of programs");
    };
    Ok(data.fd().as_fd().try_clone_to_owned()?)
}
