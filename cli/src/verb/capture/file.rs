//! A capture as pcapng (draft-ietf-opsawg-pcapng), for tshark and Wireshark.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::UNIX_EPOCH;

use kuafu_dataplane::capture::{Passage, Side, Snapshot};
use kuafu_pipeline::map::CapturedProgram;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

/// Times are in 10⁻⁹ s.
const NANOSECONDS: u8 = 9;
/// Writes passages: each side of a program is a packet, and each program on each device an interface.
pub(super) struct Writer<W: Write> {
    out: PcapNgWriter<W>,
    snap_length: u32,
    interfaces: BTreeMap<(String, CapturedProgram), u32>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, snap_length: u32) -> io::Result<Self> {
        Ok(Self {
            out: PcapNgWriter::new(out).map_err(io_error)?,
            snap_length,
            interfaces: BTreeMap::new(),
        })
    }

    pub(super) fn put(&mut self, passage: &Passage) -> io::Result<()> {
        let interface = self.interface(passage)?;
        for (side, snapshot) in passage.snapshots() {
            self.packet(interface, passage, side, snapshot)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.get_mut().flush()
    }

    fn interface(&mut self, passage: &Passage) -> io::Result<u32> {
        let key = (passage.interface.clone(), passage.program);
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        let what = format!("{}, {}", passage.program.word(), passage.hook);
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snap_length,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(&passage.interface)),
                InterfaceDescriptionOption::IfDescription(Cow::Owned(what)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.out.write_pcapng_block(block).map_err(io_error)?;
        self.interfaces.insert(key, number);
        Ok(number)
    }

    fn packet(&mut self, interface: u32, passage: &Passage, side: Side, at: &Snapshot) -> io::Result<()> {
        let block = EnhancedPacketBlock {
            interface_id: interface,
            timestamp: at.time.duration_since(UNIX_EPOCH).unwrap_or_default(),
            original_len: at.length,
            data: Cow::Borrowed(&at.octets),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment(passage, side)))],
        };
        self.out.write_pcapng_block(block).map(drop).map_err(io_error)
    }
}

/// What a packet's comment says: `7 before edge, xdp native` or `7 after edge, xdp native: drop, bad_tag`. The number
/// is the same on both sides.
fn comment(passage: &Passage, side: Side) -> String {
    let number = passage.number;
    let place = format!("{}, {}", passage.program.word(), passage.hook);
    match (side, passage.reason) {
        (Side::Before, _) => format!("{number} before {place}"),
        (Side::After, None) => format!("{number} after {place}: {}", passage.word()),
        (Side::After, Some(reason)) => {
            format!("{number} after {place}: {}, {}", passage.word(), reason.word())
        }
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use kuafu_pipeline::Reason;
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::verb::capture::line::tests::passage;

    #[test]
    fn what_is_written_reads_back() {
        let mut octets = Vec::new();
        let mut writer = Writer::new(&mut octets, 96).unwrap();
        let mut dropped = passage();
        dropped.reason = Some(Reason::BadTag);
        dropped.verdict = 1;
        for one in [&passage(), &dropped] {
            writer.put(one).unwrap();
        }
        let mut reader = PcapNgReader::new(octets.as_slice()).unwrap();
        let mut comments = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap() {
                assert_eq!((packet.interface_id, packet.original_len), (0, 1500));
                assert_eq!(packet.data, passage().after.octets);
                let Some(EnhancedPacketOption::Comment(comment)) = packet.options.first() else {
                    panic!("{packet:?}");
                };
                comments.push(comment.to_string());
            }
        }
        let expected = [
            "1 before edge, xdp native",
            "1 after edge, xdp native: tx",
            "1 before edge, xdp native",
            "1 after edge, xdp native: drop, bad_tag",
        ];
        assert_eq!(comments, expected);
        assert_eq!(reader.interfaces().len(), 1);
    }
}
