//! A kernel that is older than this one, to whoever is started in it.

use std::{collections::BTreeMap, thread};

use nix::libc::{EINVAL, SYS_bpf};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// `BPF_PROG_QUERY` of `enum bpf_cmd`.
const PROG_QUERY: u64 = 16;
/// As what a kernel answers to a question that it does not know.
const UNKNOWN: u32 = EINVAL.unsigned_abs();

/// Does something as before Linux 6.6, which brought TCX: asked what is attached there, the kernel knows no such place. Whatever
/// is started meanwhile is asked to go by that, too.
pub fn without_tcx<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            seccompiler::apply_filter(&filter()).expect("a kernel with seccomp");
            act()
        });
        thread.join().expect("it goes well")
    })
}

fn filter() -> BpfProgram {
    let is_query = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, PROG_QUERY);
    let rule = SeccompRule::new(vec![is_query.expect("a first argument")]).expect("a condition");
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture with seccomp");
    let filter = SeccompFilter::new(
        BTreeMap::from([(SYS_bpf, vec![rule])]),
        SeccompAction::Allow,
        SeccompAction::Errno(UNKNOWN),
        arch,
    );
    filter.expect("a filter").try_into().expect("a short program")
}
