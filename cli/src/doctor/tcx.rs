//! Whether the kernel has tcx: tried where that is permitted, else read from what it says of itself.

use aya::Ebpf;
use aya::programs::LinkOrder;
use aya::programs::tc::{SchedClassifier, TcAttachOptions, TcAttachType};

use super::elf;
use super::machine::Machine;

/// What is known of tcx.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tcx {
    /// A program was attached by it, and is detached again.
    Attached,
    /// The kernel's types name it.
    Named,
    /// It is not there, for this reason.
    Missing(String),
    /// Neither could be found out.
    Unknown,
}

/// Attaches a program that does nothing to the loopback device, for a moment. Without permission the kernel's BTF says
/// whether `BPF_TCX_INGRESS` (Linux 6.6) is an attach type.
pub(super) fn look(machine: &Machine, permitted: bool) -> Tcx {
    let named = machine.holds("/sys/kernel/btf/vmlinux", b"BPF_TCX_INGRESS\0");
    if machine.is_this() && permitted && named != Some(false) {
        return match attach() {
            Ok(()) => Tcx::Attached,
            Err(error) => Tcx::Missing(error),
        };
    }
    match named {
        Some(true) => Tcx::Named,
        Some(false) => Tcx::Missing("the kernel has no attach type BPF_TCX_INGRESS".to_owned()),
        None => Tcx::Unknown,
    }
}

/// Everything is taken back when the values go.
fn attach() -> Result<(), String> {
    let mut object = Ebpf::load(&elf::object()).map_err(chain)?;
    let program = object.program_mut(elf::NAME).ok_or("the object has no program")?;
    let program: &mut SchedClassifier = program.try_into().map_err(chain)?;
    program.load().map_err(chain)?;
    let order = TcAttachOptions::TcxOrder(LinkOrder::last());
    program
        .attach_with_options("lo", TcAttachType::Ingress, order)
        .map_err(chain)?;
    Ok(())
}

fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        text += &format!(": {error}");
        inner = error.source();
    }
    text
}
