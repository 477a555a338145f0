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
        names::BUDGETS,
        names::COUNTERS,
        names::EVENTS,
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
