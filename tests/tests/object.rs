//! The BPF object that the build left: what a loader looks for is in it, and what the kernel refuses is not.

use knock_common::names;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

fn symbols() -> Vec<String> {
    let elf = object::File::parse(knock_user::loader::OBJECT).expect("an ELF object");
    elf.symbols().filter_map(|symbol| symbol.name().ok().map(str::to_owned)).collect()
}

#[test]
fn every_name_of_the_loader_is_in_the_object() {
    let symbols = symbols();
    let names = [
        names::PROGRAM,
        names::DOORS,
        names::PORT_DOORS,
        names::PREFIXES,
        names::FIRST_ATTEMPTS,
        names::LATER_ATTEMPTS,
        names::GRANTS,
        names::BANS,
        names::BANS_IN_USE,
        names::ABOUT,
        names::CONFIRM,
        names::PREVIOUS,
        names::BUDGETS,
        names::COUNTERS,
        names::EVENTS,
        names::LEDGER,
        names::TEST_CLOCK,
        names::SETTINGS,
        names::PORT_ROLES,
    ];

    for name in names {
        assert!(symbols.iter().any(|symbol| symbol == name), "no symbol {name} in {symbols:?}");
        assert!(name.len() <= 15, "the kernel cuts {name} to 15 characters");
    }
}

#[test]
fn nothing_in_the_object_can_panic() {
    let symbols = symbols();
    let panics: Vec<&String> = symbols.iter().filter(|symbol| symbol.contains("panic")).collect();

    assert!(panics.is_empty(), "{panics:?}");
}

#[test]
fn the_licence_allows_the_helpers_in_use() {
    let elf = object::File::parse(knock_user::loader::OBJECT).expect("an ELF object");
    let licence = elf.section_by_name("license").expect("a license section");

    assert_eq!(licence.data().expect("its bytes"), b"Dual MIT/GPL\0");
}

/// What one function of a program may use (`MAX_BPF_STACK`), and all of a call chain together.
const MOST_STACK: u64 = 512;

#[test]
fn no_function_needs_more_stack_than_a_program_has() {
    let elf = object::File::parse(knock_user::loader::OBJECT).expect("an ELF object");
    let functions =
        elf.symbols().filter(|symbol| symbol.kind() == object::SymbolKind::Text && symbol.size() > 0);
    let mut seen = 0;
    for function in functions {
        let Some(section) = function.section_index().and_then(|index| elf.section_by_index(index).ok())
        else {
            continue;
        };
        let code =
            section.data_range(function.address(), function.size()).expect("readable").expect("its code");
        let stack = stack_of(code);
        println!(
            "{:>4} bytes of stack, {:>5} instructions: {}",
            stack,
            code.len() / 8,
            function.name().unwrap_or("?")
        );
        assert!(stack <= MOST_STACK);
        seen += 1;
    }

    assert!(seen > 5, "{seen} functions");
}

/// Returns the farthest that code reaches below the frame pointer, r10: by loads and stores through it, and by
/// registers that it is copied to and that are then lowered (RFC 9669, section 3).
fn stack_of(code: &[u8]) -> u64 {
    const FRAME: u8 = 10;
    let mut lowest = 0_i64;
    let mut copied = None;
    for instruction in code.chunks_exact(8) {
        let (opcode, to, from) = (instruction[0], instruction[1] & 0x0f, instruction[1] >> 4);
        let offset = i64::from(i16::from_le_bytes([instruction[2], instruction[3]]));
        let number =
            i64::from(i32::from_le_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]));
        match opcode & 0x07 {
            // LDX reads through its source, ST and STX write through their destination.
            0x01 if from == FRAME => lowest = lowest.min(offset),
            0x02 | 0x03 if to == FRAME => lowest = lowest.min(offset),
            _ => {}
        }
        match (opcode, copied) {
            (0xbf, _) if from == FRAME => copied = Some(to),
            (0x07, Some(register)) if register == to => lowest = lowest.min(number),
            _ => {}
        }
    }
    lowest.unsigned_abs()
}
