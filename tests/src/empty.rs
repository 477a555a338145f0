//! The program that does nothing: what a run of any program costs at least.

use aya::{Ebpf, programs::Xdp};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

const NAME: &str = "empty";
/// `r0 = XDP_PASS; exit` (`uapi/linux/bpf.h`: an opcode, registers, an offset and a number each).
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// An XDP program that passes everything.
pub struct Empty(Ebpf);

impl Empty {
    /// Loads it.
    pub fn load() -> Self {
        let mut ebpf = Ebpf::load(&object()).expect("a sound object");
        let program: &mut Xdp = ebpf.program_mut(NAME).expect("the program").try_into().expect("of XDP");
        program.load().expect("the verifier takes it");
        Self(ebpf)
    }

    /// Returns the program.
    pub fn program(&self) -> &Xdp {
        self.0.program(NAME).expect("the program").try_into().expect("of XDP")
    }
}

fn object() -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    let code = object.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
    object.append_section_data(code, &CODE, 8);
    object.add_symbol(Symbol {
        name: NAME.as_bytes().to_vec(),
        value: 0,
        size: CODE.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(code),
        flags: SymbolFlags::None,
    });
    object.write().expect("an object of ELF")
}
