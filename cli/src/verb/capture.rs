//! `kuafu capture`.

mod file;
mod line;

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result as Any, bail};
use kuafu_dataplane::bpf::Pins;
use kuafu_dataplane::capture::filter::Filter;
use kuafu_dataplane::capture::{Capture, Options, Passage, SNAP_LENGTH};

use super::agent::PIN_ROOT;
use crate::args::Global;
use crate::failure::Result;
use crate::interrupt;
use crate::out;

/// How often what the programs told is taken out of their buffers.
const LOOK: Duration = Duration::from_millis(10);
/// How often the programs are told to go on.
const KEEP: Duration = Duration::from_secs(1);

/// Show packets before and after each of Kuafu's programs on this host
///
/// Sees what tcpdump cannot: packets that XDP sends on, and why a packet was dropped. A line is one side of a program:
/// `in` before it, or what it returned, with the reason of a drop. FILTER is pcap's (pcap-filter(7), compiled by
/// tcpdump); it takes a packet if it takes it before or after the program, or what it carries. Works without agent and
/// controller; ends by Ctrl-C, and leaves nothing in the kernel.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu capture                                  # a line a packet and side
  kuafu capture udp port 7000                    # also inside VXLAN and Geneve
  kuafu capture --drops --count 20
  kuafu capture -w relay.pcapng --seconds 10
  kuafu capture -w - | tshark -X lua_script:/usr/share/kuafu/kuafu.lua -r - -Y 'kuafu.label == 17'")]
pub(crate) struct Args {
    /// Which packets, in pcap's syntax; all by default
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Only packets that were dropped or refused, as they were then
    #[arg(long)]
    drops: bool,
    /// Write pcapng to a file, or with - to standard output, instead of lines
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Octets of each packet, at most
    #[arg(long, value_name = "OCTETS", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=i64::from(SNAP_LENGTH)))]
    snaplen: u32,
    /// End after so many packets
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: Option<u64>,
    /// Packets a second that the programs tell, before any filter; 0 for all
    #[arg(long, value_name = "PACKETS", default_value_t = 10_000)]
    rate: u32,
    /// Where maps, programs and links are pinned
    #[arg(long, value_name = "DIR", default_value = PIN_ROOT)]
    pin_root: PathBuf,
}

pub(crate) fn run(global: &Global, args: Args) -> Result {
    let interrupted = interrupt::receiver()?;
    let filter = match args.filter.join(" ") {
        all if all.trim().is_empty() => None,
        expression => Some(Filter::compile(&expression)?),
    };
    let node = node(&global.places().node(), &args.pin_root)?;
    let options = Options {
        drops_only: args.drops,
        snap_length: args.snaplen,
        rate: args.rate,
    };
    let mut sink = Sink::open(args.write.as_deref(), args.snaplen)?;
    let mut run = Run {
        capture: Capture::start(Pins::new(&args.pin_root, &node), options)?,
        filter,
        left: args.count.unwrap_or(u64::MAX),
        shown: 0,
    };
    let until = args
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    out::complain(&format!("capturing on {node}; Ctrl-C ends"));
    let ended = run.until_it_ends(&mut sink, &interrupted, until);
    let left_out = run.capture.left_out();
    let shown = run.shown;
    // The programs stop telling before anything is said of the end.
    drop(run);
    ended?;
    let left_out = left_out?;
    out::complain(&format!(
        "{shown} packets; {} more beyond --rate {}, {} lost on the way",
        left_out.by_rate, args.rate, left_out.lost
    ));
    Ok(())
}

/// This host's name in the cluster; where it has none, as with `kuafu agent --state`, the one node that is pinned.
fn node(file: &Path, pin_root: &Path) -> Any<String> {
    if let Ok(node) = std::fs::read_to_string(file) {
        return Ok(node.trim().to_owned());
    }
    let entries = std::fs::read_dir(pin_root).with_context(|| {
        format!(
            "no agent has run on this host: cannot read {}",
            pin_root.display()
        )
    })?;
    let mut nodes = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    match (nodes.next(), nodes.next()) {
        (Some(node), None) => Ok(node),
        (None, _) => bail!("no agent has run on this host: {} is empty", pin_root.display()),
        (Some(_), Some(_)) => bail!(
            "several nodes are pinned below {}: --root chooses one",
            pin_root.display()
        ),
    }
}

/// A capture that goes on.
struct Run {
    capture: Capture,
    filter: Option<Filter>,
    left: u64,
    shown: u64,
}

impl Run {
    fn until_it_ends(
        &mut self,
        sink: &mut Sink,
        interrupted: &Receiver<()>,
        until: Option<Instant>,
    ) -> Any<()> {
        let mut kept = Instant::now();
        loop {
            let is_over = interrupted.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout)
                || until.is_some_and(|until| Instant::now() >= until);
            match self.show(sink) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                shown => shown.context("cannot write")?,
            }
            if is_over || self.left == 0 {
                return Ok(());
            }
            if kept.elapsed() >= KEEP {
                kept = Instant::now();
                if !self.capture.keep()? {
                    bail!("Kuafu's programs have gone from this host");
                }
            }
        }
    }

    fn show(&mut self, sink: &mut Sink) -> io::Result<()> {
        for passage in self.capture.read() {
            let is_taken = self.filter.as_ref().is_none_or(|filter| filter.takes(&passage));
            if is_taken && self.left > 0 {
                sink.put(&passage)?;
                self.left -= 1;
                self.shown += 1;
            }
        }
        sink.flush()
    }
}

/// Where packets go.
enum Sink {
    Lines(BufWriter<io::Stdout>),
    File(file::Writer<BufWriter<Box<dyn Write>>>),
}

impl Sink {
    fn open(path: Option<&Path>, snap_length: u32) -> Any<Self> {
        let out: Box<dyn Write> = match path {
            None => return Ok(Self::Lines(BufWriter::new(io::stdout()))),
            Some(path) if path == Path::new("-") => Box::new(io::stdout()),
            Some(path) => {
                let file = File::create(path);
                Box::new(file.with_context(|| format!("cannot write {}", path.display()))?)
            }
        };
        let writer = file::Writer::new(BufWriter::new(out), snap_length);
        Ok(Self::File(writer.context("cannot write")?))
    }

    fn put(&mut self, passage: &Passage) -> io::Result<()> {
        match self {
            Self::Lines(out) => line::lines(passage).try_for_each(|line| writeln!(out, "{line}")),
            Self::File(writer) => writer.put(passage),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Lines(out) => out.flush(),
            Self::File(writer) => writer.flush(),
        }
    }
}
