//! What the kernel can do: tried, not guessed from its version.

use std::{
    fs,
    io::ErrorKind,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use aya::{
    maps::MapType,
    programs::{ProgramType, XdpMode, links::FdLink, xdp::XdpLink},
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::utsname::uname,
};

use super::Finding;
use crate::{
    attach,
    config::{Config, init},
    generation::{DEFAULT_EPHEMERAL, Generation},
    loader::{Gate, Options},
};

const REMEDY: &str = "use a kernel of 6.1 or later with CONFIG_BPF_SYSCALL";

/// Looks at the kernel.
pub fn look(is_root: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_root {
        findings.extend(features());
        findings.push(tcx(attach::has_tcx()));
        findings.push(program());
    } else {
        findings.push(Finding::unseen(
            "kernel",
            format!("{}; only root may try what it can do", release()),
            "run it with sudo",
        ));
    }
    findings.extend([jit(), btf()]);
    findings
}

fn release() -> String {
    uname().map_or("Linux".to_owned(), |facts| format!("Linux {}", facts.release().to_string_lossy()))
}

fn features() -> Vec<Finding> {
    let helper = |helper| is_helper_supported(ProgramType::Xdp, helper).map_err(|error| error.to_string());
    let map = |kind| is_map_supported(kind).map_err(|error| error.to_string());
    let tried = [
        ("XDP programs", is_program_supported(ProgramType::Xdp).map_err(|error| error.to_string())),
        ("ring buffers", map(MapType::RingBuf)),
        ("LRU hashes", map(MapType::LruHash)),
        ("prefix tries", map(MapType::LpmTrie)),
        ("program arrays", map(MapType::ProgramArray)),
        ("the boot-time clock", helper(BpfHelper::BPF_FUNC_ktime_get_boot_ns)),
        ("tail calls", helper(BpfHelper::BPF_FUNC_tail_call)),
        ("socket lookups", helper(BpfHelper::BPF_FUNC_skc_lookup_tcp)),
        ("route lookups", helper(BpfHelper::BPF_FUNC_fib_lookup)),
    ];
    let lacking: Vec<Finding> = tried.iter().filter_map(|(what, has)| lacking(what, has)).collect();
    if !lacking.is_empty() {
        return lacking;
    }
    let all: Vec<&str> = tried.iter().map(|(what, _)| *what).collect();
    vec![Finding::ok("kernel", format!("{} has {}", release(), all.join(", ")))]
}

fn lacking(what: &str, has: &Result<bool, String>) -> Option<Finding> {
    match has {
        Ok(true) => None,
        Ok(false) => Some(Finding::fail("kernel", format!("{} lacks {what}", release()), REMEDY)),
        Err(error) => Some(Finding::fail("kernel", format!("trying {what}: {error}"), REMEDY)),
    }
}

/// Deny mode, tunnels, and what a service behind this machine accepted need it; the rest does without.
fn tcx(is_there: bool) -> Finding {
    if is_there {
        return Finding::ok(
            "tcx",
            "outgoing packets are noted by a link, and packets without an Ethernet header can be judged",
        );
    }
    Finding::warn(
        "tcx",
        "this kernel has none: outgoing packets are noted by a filter of clsact, and tunnels and --attach tcx are refused",
        "use a kernel of 6.6 or later",
    )
}

/// Loads the very program, and puts it on the loopback of a network namespace that is there for nothing else.
fn program() -> Finding {
    match std::thread::spawn(load_and_link).join() {
        Ok(Ok(took)) => {
            let what = format!("it takes this program (verified in {took:.1?}), and links to it");
            Finding::ok("kernel", what)
        }
        Ok(Err(error)) => Finding::fail("kernel", format!("{error:#}"), REMEDY),
        Err(_) => Finding::fail("kernel", "trying this program failed", REMEDY),
    }
}

/// Leaves the network namespace of the process, so for a thread that ends with it.
fn load_and_link() -> Result<Duration> {
    let (config, _) = Config::parse("the built-in example", &init::example(&[])?)?;
    let generation = Generation::compile(&config, 1, &DEFAULT_EPHEMERAL)?;
    let started = Instant::now();
    let mut gate = Gate::load(&generation, &Options::default())?;
    let took = started.elapsed();
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace to try links in")?;
    let program = gate.program()?;
    let id = program.attach("lo", XdpMode::Skb).context("attaching this program")?;
    let link = program.take_link(id)?;
    let link =
        FdLink::try_from(link).map_err(|_| anyhow!("the kernel has no links for XDP, which pins take"))?;
    let link =
        XdpLink::try_from(link).map_err(|_| anyhow!("the kernel made another link than was asked for"))?;
    let id = program.attach_to_link(link).context("putting a program in the place of another")?;
    ensure!(program.take_link(id).is_ok(), "the link got lost");
    Ok(took)
}

fn jit() -> Finding {
    const FILE: &str = "/proc/sys/net/core/bpf_jit_enable";
    match fs::read_to_string(FILE) {
        Ok(text) if text.trim() == "0" => Finding::warn(
            "jit",
            "programs are interpreted: several times the cost a packet",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Ok(_) => Finding::ok("jit", "programs are compiled to machine code"),
        Err(error) if error.kind() == ErrorKind::NotFound => Finding::unseen(
            "jit",
            "a network namespace other than the first does not tell",
            "look in the first one: sysctl net.core.bpf_jit_enable",
        ),
        Err(error) => Finding::unseen("jit", format!("{FILE}: {error}"), "run it with sudo"),
    }
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Finding::ok("btf", "the kernel describes its own types");
    }
    Finding::warn(
        "btf",
        "the kernel does not describe its own types: the gate does without",
        "a kernel with CONFIG_DEBUG_INFO_BTF, should other tools want it",
    )
}
