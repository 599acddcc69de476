//! The one file with `unsafe`: bpf(2), the ring buffer's shared memory, map values as octets, ethtool, adjtimex.
//!
//! `struct`s that end in `Attr` are parts of `union bpf_attr` (linux/bpf.h); what the kernel does not find in them it
//! takes for zero.
#![allow(
    unsafe_code,
    reason = "system calls and shared memory; each block says why it is sound"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kuafu_pipeline::map::{
    AdmittedKey, AdmittedKeyV6, Bucket, CachedFlows, CaptureOrder, CaptureRecord, CaptureState, Connection,
    ConnectionKey, Counter, Drop as Dropped, Endpoint, EndpointKey, FirstFragment, FragmentKey, Fragmenter,
    Hitter, HitterV6, IpKey, Limit, LimitState, MemberKey, Neighbour, NextHop, NodeConfig, OwnWindow, Pair,
    PairState, PassedOn, Path as BackbonePath, PathState, Port, Question, QuicServerKey, Sample, Seen,
    Service, ServiceKey, Shield, ShieldCounts, ShieldState, Slot, SlotState, TargetSigns, Tracked, Vtep,
    VtepKey, Window,
};

/// A key or value of a map: what it says is its octets, without padding, and any octets are one.
///
/// # Safety
/// No padding, and any bits are valid.
pub unsafe trait Octets: Sized + 'static {
    /// As the kernel keeps it.
    fn to_octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(size_of::<Self>());
        self.append_to(&mut octets);
        octets
    }

    /// The same, behind others.
    fn append_to(&self, octets: &mut Vec<u8>) {
        // SAFETY: one value without padding (the trait's promise), as so many octets, for as long as it is borrowed.
        let own = unsafe { std::slice::from_raw_parts(ptr::from_ref(self).cast(), size_of::<Self>()) };
        octets.extend_from_slice(own);
    }

    /// From what the kernel keeps; `None` where there are fewer octets.
    fn from_octets(octets: &[u8]) -> Option<Self> {
        let mut value = MaybeUninit::<Self>::uninit();
        let octets = octets.get(..size_of::<Self>())?;
        // SAFETY: as many octets as the value has, which may have any bits (the trait's promise).
        unsafe {
            ptr::copy_nonoverlapping(octets.as_ptr(), value.as_mut_ptr().cast(), octets.len());
            Some(value.assume_init())
        }
    }
}

// SAFETY: an integer.
unsafe impl Octets for u32 {}
// SAFETY: as above.
unsafe impl Octets for u64 {}

type QuestionV6 = Question<IpKey>;

macro_rules! octets {
    ($($name:ident)+) => { $(
        const _: () = {
            const fn is_a_map_type<T: kuafu_pipeline::MapType>() {}
            is_a_map_type::<$name>();
        };
        // SAFETY: a map type has no padding and may have any bits.
        unsafe impl Octets for $name {}
    )+ };
}

octets! {
    AdmittedKey AdmittedKeyV6 Bucket CachedFlows CaptureOrder CaptureRecord CaptureState Connection ConnectionKey Counter Dropped Endpoint EndpointKey FirstFragment FragmentKey Fragmenter Hitter HitterV6 Limit LimitState MemberKey Neighbour NextHop NodeConfig OwnWindow
    Pair PairState PassedOn BackbonePath PathState Port QuestionV6 QuicServerKey Sample Seen Service ServiceKey Shield ShieldCounts ShieldState Slot SlotState TargetSigns Tracked
    Vtep VtepKey Window
}

const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const MAP_DELETE: i32 = 3;
const MAP_NEXT_KEY: i32 = 4;
const PROG_LOAD: i32 = 5;
const OBJ_PIN: i32 = 6;
const OBJ_GET: i32 = 7;
const PROG_TEST_RUN: i32 = 10;
const OBJ_INFO: i32 = 15;
const MAP_LOOKUP_BATCH: i32 = 24;
const MAP_UPDATE_BATCH: i32 = 26;
const LINK_CREATE: i32 = 28;
const LINK_UPDATE: i32 = 29;
const LINK_DETACH: i32 = 34;

/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;
/// `BPF_MAP_TYPE_PERCPU_ARRAY`.
const PERCPU_ARRAY: u32 = 6;

/// One call of bpf(2).
fn bpf<A>(command: i32, attribute: &mut A) -> io::Result<i32> {
    // SAFETY: the attribute lives during the call and its size is told; the pointers in it are its maker's promise.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attribute), size_of::<A>()) };
    i32::try_from(answer)
        .ok()
        .filter(|answer| *answer >= 0)
        .ok_or_else(io::Error::last_os_error)
}

/// A call whose answer is a new descriptor.
fn bpf_fd<A>(command: i32, attribute: &mut A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attribute)?;
    // SAFETY: the kernel made the descriptor for this call, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn address<T>(of: &[T]) -> u64 {
    of.as_ptr() as u64
}

fn length(of: &[u8]) -> u32 {
    u32::try_from(of.len()).unwrap_or(u32::MAX)
}

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// What the kernel says of a map: the first words of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// What the kernel says of a link: the first words of `struct bpf_link_info`, for a device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) program: u32,
    pad: u32,
    /// 0 once the device is gone.
    pub(crate) interface: u32,
    pub(crate) attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The `struct`s that `BPF_OBJ_GET_INFO_BY_FD` fills.
trait Info: Default {}
impl Info for MapInfo {}
impl Info for LinkInfo {}

fn info<I: Info>(fd: BorrowedFd<'_>) -> io::Result<I> {
    let mut info = I::default();
    let mut attribute = InfoAttr {
        fd: number(fd),
        length: u32::try_from(size_of::<I>()).unwrap_or(0),
        info: ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_INFO, &mut attribute)?;
    Ok(info)
}

pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(link)
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    New,
    /// Its key was there already, and has the value that it had.
    There,
}

/// A map, whose sizes are known so that no call reads or writes past a buffer.
#[derive(Debug)]
pub(crate) struct RawMap {
    fd: OwnedFd,
    pub(crate) info: MapInfo,
    /// Octets of a value as it comes to userland: of all CPUs, for a per-CPU map.
    pub(crate) value_size: usize,
}

impl RawMap {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let info: MapInfo = info(fd.as_fd())?;
        let size = info.value_size as usize;
        let value_size = if info.kind == PERCPU_ARRAY {
            size.next_multiple_of(8) * possible_cpus()?
        } else {
            size
        };
        Ok(Self { fd, info, value_size })
    }

    fn checks(&self, key: &[u8], value: usize) -> io::Result<()> {
        if key.len() == self.info.key_size as usize && value == self.value_size {
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::InvalidInput))
    }

    fn element(&self, key: u64, value: u64, flags: u64) -> ElementAttr {
        ElementAttr {
            map: number(self.fd.as_fd()),
            pad: 0,
            key,
            value,
            flags,
        }
    }

    /// `false`: no such key.
    pub(crate) fn get(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.checks(key, value.len())?;
        let mut attribute = self.element(address(key), value.as_mut_ptr() as u64, 0);
        there_is(bpf(MAP_LOOKUP, &mut attribute))
    }

    pub(crate) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.checks(key, value.len())?;
        bpf(MAP_UPDATE, &mut self.element(address(key), address(value), 0)).map(drop)
    }

    /// Enters a value where its key is new.
    pub(crate) fn insert(&self, key: &[u8], value: &[u8]) -> io::Result<Inserted> {
        self.checks(key, value.len())?;
        match bpf(
            MAP_UPDATE,
            &mut self.element(address(key), address(value), NO_EXIST),
        ) {
            Ok(_) => Ok(Inserted::New),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(Inserted::There),
            Err(error) => Err(error),
        }
    }

    /// Whether each CPU has a value of its own.
    pub(crate) const fn is_per_cpu(&self) -> bool {
        self.info.kind == PERCPU_ARRAY
    }

    /// `false`: no such key.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.checks(key, self.value_size)?;
        there_is(bpf(MAP_DELETE, &mut self.element(address(key), 0, 0)))
    }

    /// The key after `key`, or the first one; `false`: there is none.
    pub(crate) fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        self.checks(key.unwrap_or(next), self.value_size)?;
        self.checks(next, self.value_size)?;
        let mut attribute = self.element(key.map_or(0, address), next.as_mut_ptr() as u64, 0);
        there_is(bpf(MAP_NEXT_KEY, &mut attribute))
    }

    /// Writes entries that lie one after the other; returns how many were written when it failed.
    pub(crate) fn update_batch(
        &self,
        keys: &[u8],
        values: &[u8],
        count: u32,
    ) -> Result<(), (u32, io::Error)> {
        let fits = keys.len() == count as usize * self.info.key_size as usize
            && values.len() == count as usize * self.value_size;
        if !fits {
            return Err((0, io::Error::from(io::ErrorKind::InvalidInput)));
        }
        let mut attribute = BatchAttr {
            keys: address(keys),
            values: address(values),
            count,
            map: number(self.fd.as_fd()),
            ..BatchAttr::default()
        };
        bpf(MAP_UPDATE_BATCH, &mut attribute)
            .map(drop)
            .map_err(|error| (attribute.count, error))
    }

    /// Reads entries from `cursor` on (empty: from the start) and moves it. Returns how many, and whether there may be
    /// more.
    pub(crate) fn lookup_batch(
        &self,
        cursor: &mut Vec<u8>,
        keys: &mut [u8],
        values: &mut [u8],
        count: u32,
    ) -> io::Result<(u32, bool)> {
        let fits = keys.len() >= count as usize * self.info.key_size as usize
            && values.len() >= count as usize * self.value_size;
        if !fits {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // The kernel's cursor is a bucket's number or a key.
        let mut next = vec![0; (self.info.key_size as usize).max(8)];
        let mut attribute = BatchAttr {
            from: if cursor.is_empty() { 0 } else { address(cursor) },
            to: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count,
            map: number(self.fd.as_fd()),
            ..BatchAttr::default()
        };
        let more = there_is(bpf(MAP_LOOKUP_BATCH, &mut attribute))?;
        *cursor = next;
        Ok((attribute.count, more))
    }
}

impl AsFd for RawMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn there_is(answer: io::Result<i32>) -> io::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// CPUs that a per-CPU value has a part for.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().unwrap_or_default();
    last.parse::<usize>()
        .map(|last| last + 1)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

#[repr(C)]
#[derive(Default)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attribute = PinAttr {
        path: path.as_ptr() as u64,
        fd: number(fd),
        flags: 0,
    };
    bpf(OBJ_PIN, &mut attribute).map(drop)
}

pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attribute = PinAttr {
        path: path.as_ptr() as u64,
        ..PinAttr::default()
    };
    bpf_fd(OBJ_GET, &mut attribute)
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}

pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    interface: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attribute = LinkCreateAttr {
        program: number(program),
        interface,
        attach_type,
        flags,
        ..LinkCreateAttr::default()
    };
    bpf_fd(LINK_CREATE, &mut attribute)
}

#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = LinkUpdateAttr {
        link: number(link),
        program: number(program),
        flags: 0,
        old: 0,
    };
    bpf(LINK_UPDATE, &mut attribute).map(drop)
}

#[repr(C)]
struct LinkDetachAttr {
    link: u32,
}

/// Takes a link off its device at once: closing and unpinning it does so some time later.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &mut LinkDetachAttr { link: number(link) }).map(drop)
}

#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    program: u32,
    verdict: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    pad: u32,
}

/// Runs a program `repeat` times over a packet: verdict, nanoseconds a run, octets that were written to `out`.
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    context: &[u8],
    repeat: u32,
    out: &mut [u8],
) -> io::Result<(u32, u32, usize)> {
    let mut attribute = TestRunAttr {
        program: number(program),
        size_in: length(frame),
        size_out: length(out),
        data_in: address(frame),
        data_out: out.as_mut_ptr() as u64,
        repeat,
        context_size_in: length(context),
        context_in: if context.is_empty() { 0 } else { address(context) },
        ..TestRunAttr::default()
    };
    bpf(PROG_TEST_RUN, &mut attribute)?;
    Ok((attribute.verdict, attribute.duration, attribute.size_out as usize))
}

#[repr(C)]
#[derive(Default)]
struct ProgLoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

/// Loads a program of plain instructions, of type `BPF_PROG_TYPE_SCHED_CLS`.
pub(crate) fn load_classifier(instructions: &[u64]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let mut attribute = ProgLoadAttr {
        kind: 3,
        count: u32::try_from(instructions.len()).unwrap_or(0),
        instructions: address(instructions),
        license: license.as_ptr() as u64,
        ..ProgLoadAttr::default()
    };
    bpf_fd(PROG_LOAD, &mut attribute)
}

/// The shared memory of a `BPF_MAP_TYPE_RINGBUF`: a page with the reader's position, a page with the writers', and the
/// data, twice in a row.
pub(crate) struct Ring {
    reader: ptr::NonNull<u8>,
    writer: ptr::NonNull<u8>,
    page: usize,
    size: usize,
}

// SAFETY: the mappings belong to this value alone; one reader at a time by `&mut`.
unsafe impl Send for Ring {}

/// The record is still being written.
const BUSY: u32 = 1 << 31;
/// The record was given up.
const DISCARDED: u32 = 1 << 30;

impl Ring {
    pub(crate) fn new(map: &RawMap) -> io::Result<Self> {
        let (page, size) = (page_size()?, map.info.max_entries as usize);
        let reader = mmap(map.as_fd(), page, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let writer = mmap(map.as_fd(), page + 2 * size, libc::PROT_READ, page).inspect_err(|_| {
            // SAFETY: mapped just above, with this length, and not used any more.
            unsafe { libc::munmap(reader.as_ptr().cast(), page) };
        })?;
        Ok(Self {
            reader,
            writer,
            page,
            size,
        })
    }

    fn read_at(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped as long as `self`, and begins with the position.
        unsafe { self.reader.cast::<AtomicU64>().as_ref() }
    }

    fn written_to(&self) -> u64 {
        // SAFETY: as above; the kernel only ever writes it.
        unsafe { self.writer.cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire)
    }

    /// Hands the next record's octets to `take`, unless there is none.
    pub(crate) fn next<R>(&mut self, mut take: impl FnMut(&[u8]) -> R) -> Option<R> {
        let mut position = self.read_at().load(Ordering::Relaxed);
        while position < self.written_to() {
            let offset = usize::try_from(position).ok()? & (self.size - 1);
            // SAFETY: `offset` lies in the data, which is mapped twice, so that header and record are in one piece.
            let header = unsafe { self.writer.add(self.page + offset) };
            // SAFETY: records begin at multiples of 8.
            let word = unsafe { header.cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire);
            if word & BUSY != 0 {
                return None;
            }
            let length = (word & !(BUSY | DISCARDED)) as usize;
            let taken = (word & DISCARDED == 0 && length <= self.size).then(|| {
                // SAFETY: the writer has finished these octets, and nobody writes them until the position moves.
                take(unsafe { std::slice::from_raw_parts(header.add(8).as_ptr(), length) })
            });
            position += (length + 8).next_multiple_of(8) as u64;
            self.read_at().store(position, Ordering::Release);
            if taken.is_some() {
                return taken;
            }
        }
        None
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: both were mapped with these lengths, and no reference into them is left.
        unsafe {
            libc::munmap(self.reader.as_ptr().cast(), self.page);
            libc::munmap(self.writer.as_ptr().cast(), self.page + 2 * self.size);
        }
    }
}

fn page_size() -> io::Result<usize> {
    // SAFETY: takes a number and returns one.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).map_err(|_| io::Error::last_os_error())
}

fn mmap(fd: BorrowedFd<'_>, length: usize, protection: i32, offset: usize) -> io::Result<ptr::NonNull<u8>> {
    let offset = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a new mapping, where the kernel wants it.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            protection,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            offset,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    ptr::NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::Other))
}

/// Switches an offload of a device: `command` is one of linux/ethtool.h's `ETHTOOL_S…` that take a number.
pub(crate) fn ethtool(device: &str, command: u32, value: u32) -> io::Result<()> {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let socket = File::from(OwnedFd::from(std::net::UdpSocket::bind("0.0.0.0:0")?));
    let mut value = Value { command, data: value };
    // SAFETY: all zeros is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = ptr::from_mut(&mut value).cast();
    // SAFETY: SIOCETHTOOL reads an `ifreq` whose data points to the command's `struct`; both live here.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &mut request) };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether something keeps the wall clock right and has told the kernel so (adjtimex(2)).
///
/// # Errors
/// The kernel refuses to say.
pub fn clock_is_synchronised() -> io::Result<bool> {
    // SAFETY: all zeros is a valid `timex`; it asks, and changes nothing.
    let mut state: libc::timex = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the kernel writes the `timex` that lives here.
    if unsafe { libc::adjtimex(&raw mut state) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state.status & libc::STA_UNSYNC == 0)
}

/// The values of an array map, mapped into memory as words that packets change at the same time.
#[derive(Debug)]
pub(crate) struct MappedWords {
    start: ptr::NonNull<AtomicU64>,
    count: usize,
    /// Octets of the mapping: whole pages.
    length: usize,
}

// SAFETY: the words are atomic, and the mapping belongs to the process, not to a thread.
unsafe impl Send for MappedWords {}
// SAFETY: as above.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps the first `octets` of the values of an array that was made with `BPF_F_MMAPABLE`.
    pub(crate) fn new(map: BorrowedFd<'_>, octets: usize) -> io::Result<Self> {
        let length = octets.next_multiple_of(page_size()?);
        let start = mmap(map, length, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        Ok(Self {
            start: start.cast(),
            count: octets / size_of::<AtomicU64>(),
            length,
        })
    }

    /// The words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is at least as long, page-aligned, and lives as long as `self`; any bits are a number.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; nobody borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Lets a UDP socket send without checksums.
pub(crate) fn without_checksums(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option is a number, which the kernel copies.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            ptr::from_ref(&on).cast(),
            libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An `AF_PACKET` socket that sends on a device, and receives what arrives there with this ethertype (packet(7)).
pub(crate) fn packet_socket(interface: u32, ethertype: u16) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers alone. Protocol 0 receives nothing until the socket is bound.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made the descriptor for this call, nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: integers alone, of which all may be zero.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = interface.cast_signed();
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
    // SAFETY: the address lives during the call, and its size is told.
    match unsafe { libc::bind(fd, ptr::from_ref(&address).cast(), length) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Packets that found no room in a packet socket's queue since this was last asked.
pub(crate) fn packets_lost(socket: &OwnedFd) -> io::Result<u32> {
    // SAFETY: two numbers, which may be zero.
    let mut statistics: libc::tpacket_stats = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&statistics)).unwrap_or_default();
    // SAFETY: the kernel writes at most `length` octets of what lives during the call.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            ptr::from_mut(&mut statistics).cast(),
            &raw mut length,
        )
    };
    match asked {
        0 => Ok(statistics.tp_drops),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives this thread the usual priority or less, whatever its process has: others of the process come first.
pub(crate) fn let_others_first() -> io::Result<()> {
    // SAFETY: takes numbers alone; 0 is the calling thread.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 5) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns what the allocator keeps for later to the kernel.
pub(crate) fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number; other threads may allocate meanwhile.
    unsafe {
        libc::malloc_trim(0);
    }
}
