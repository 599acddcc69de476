//! The smallest object that the BPF loader takes: one classifier that leaves every packet to the next program.

/// `r0 = -1` (`TCX_NEXT`); `exit`.
const PROGRAM: [u8; 16] = [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x95, 0, 0, 0, 0, 0, 0, 0];
const LICENCE: &[u8] = b"Dual MIT/GPL\0";
/// The program's symbol starts at octet 1.
const NAMES: &[u8] = b"\0tcx_probe\0";
const SECTION_NAMES: &[u8] = b"\0classifier\0license\0.symtab\0.strtab\0.shstrtab\0";

const HEADER: u64 = 64;
const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;

/// Name of the program in the object.
pub(super) const NAME: &str = "tcx_probe";

/// A section: where its name starts in the table of names, and the fields of its header that matter (ELF-64, "Section
/// header").
struct Section<'a> {
    name: u32,
    kind: u32,
    flags: u64,
    octets: &'a [u8],
    link: u32,
    info: u32,
    entry: u64,
}

/// The object, as an ELF file for BPF.
pub(super) fn object() -> Vec<u8> {
    let symbols = symbols();
    let plain = |name, kind, octets| Section {
        name,
        kind,
        flags: 0,
        octets,
        link: 0,
        info: 0,
        entry: 0,
    };
    let sections = [
        plain(0, 0, &[][..]),
        Section {
            flags: 6,
            ..plain(1, PROGBITS, &PROGRAM)
        },
        Section {
            flags: 2,
            ..plain(12, PROGBITS, LICENCE)
        },
        Section {
            link: 4,
            info: 1,
            entry: 24,
            ..plain(20, SYMTAB, &symbols)
        },
        plain(28, STRTAB, NAMES),
        plain(36, STRTAB, SECTION_NAMES),
    ];
    let mut body = Vec::new();
    let mut headers = Vec::new();
    for section in &sections {
        let at = HEADER + body.len() as u64;
        headers.extend(header(section, at));
        body.extend(section.octets);
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let mut file = file_header(HEADER + body.len() as u64, 6).to_vec();
    file.extend(body);
    file.extend(headers);
    file
}

/// No symbol, then a global function of section 1.
fn symbols() -> Vec<u8> {
    let mut table = vec![0; 24];
    table.extend(1_u32.to_le_bytes());
    table.extend([0x12, 0, 1, 0]);
    table.extend(0_u64.to_le_bytes());
    table.extend((PROGRAM.len() as u64).to_le_bytes());
    table
}

fn header(section: &Section<'_>, at: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(64);
    header.extend(section.name.to_le_bytes());
    header.extend(section.kind.to_le_bytes());
    header.extend(section.flags.to_le_bytes());
    header.extend(0_u64.to_le_bytes());
    header.extend(at.to_le_bytes());
    header.extend((section.octets.len() as u64).to_le_bytes());
    header.extend(section.link.to_le_bytes());
    header.extend(section.info.to_le_bytes());
    header.extend(8_u64.to_le_bytes());
    header.extend(section.entry.to_le_bytes());
    header
}

/// Little-endian ELF-64, relocatable, for machine 247 (BPF).
fn file_header(sections_at: u64, sections: u16) -> [u8; 64] {
    let mut header = [0; 64];
    header[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    header[16..20].copy_from_slice(&[1, 0, 247, 0]);
    header[20] = 1;
    header[40..48].copy_from_slice(&sections_at.to_le_bytes());
    header[52] = 64;
    header[58] = 64;
    header[60..62].copy_from_slice(&sections.to_le_bytes());
    header[62..64].copy_from_slice(&(sections - 1).to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_start_where_the_headers_say() {
        let name = |at: usize| SECTION_NAMES[at..].split(|octet| *octet == 0).next().unwrap();
        assert_eq!(name(1), b"classifier");
        assert_eq!(name(12), b"license");
        assert_eq!(name(20), b".symtab");
        assert_eq!(name(28), b".strtab");
        assert_eq!(name(36), b".shstrtab");
        assert_eq!(&NAMES[1..=NAME.len()], NAME.as_bytes());
    }
}
