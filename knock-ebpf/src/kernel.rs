//! What the kernel's own tables say of a packet: its TCP sockets and its routes.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_sock_tuple,
    },
    helpers::{bpf_fib_lookup, bpf_sk_release, bpf_skc_lookup_tcp},
};
use knock_common::abi::{Address, FlowKey, is_mapped};

/// The network namespace of the interface (`uapi/linux/bpf.h`).
const CURRENT_NETNS: u64 = u64::MAX;
/// `TCP_LISTEN` (`net/tcp_states.h`).
const LISTENS: u32 = 10;
/// Socket address families (`linux/socket.h`).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Addresses and ports as `bpf_sock_tuple` has them, in network byte order.
#[repr(C)]
struct TupleV4 {
    source: [u8; 4],
    destination: [u8; 4],
    source_port: [u8; 2],
    destination_port: [u8; 2],
}

#[repr(C)]
struct TupleV6 {
    source: Address,
    destination: Address,
    source_port: [u8; 2],
    destination_port: [u8; 2],
}

/// Returns whether there is a TCP socket for the conversation that does not merely listen: a live one, one that opens, or one that
/// waits for the last packets of its connection (`bpf_skc_lookup_tcp`).
// Not inlined: the verifier goes through it once for each state that it is called in, and its tuple has a stack of its own.
#[inline(never)]
pub fn has_socket(ctx: *mut c_void, flow: &FlowKey) -> bool {
    let source_port = flow.remote_port.to_be_bytes();
    let destination_port = flow.local_port.to_be_bytes();
    if is_mapped(&flow.remote) {
        let mut tuple =
            TupleV4 { source: v4(&flow.remote), destination: v4(&flow.local), source_port, destination_port };
        is_alive(ctx, &raw mut tuple)
    } else {
        let mut tuple =
            TupleV6 { source: flow.remote, destination: flow.local, source_port, destination_port };
        is_alive(ctx, &raw mut tuple)
    }
}

#[inline(always)]
fn v4(address: &Address) -> [u8; 4] {
    let [.., a, b, c, d] = *address;
    [a, b, c, d]
}

#[inline(always)]
fn is_alive<T>(ctx: *mut c_void, tuple: *mut T) -> bool {
    // SAFETY: the context is the one of this run, and the tuple has the form and the size of its family.
    let socket = unsafe {
        bpf_skc_lookup_tcp(ctx, tuple.cast::<bpf_sock_tuple>(), size_of::<T>() as u32, CURRENT_NETNS, 0)
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the kernel's reference keeps the socket until it is released below.
    let state = unsafe { ptr::read_volatile(&raw const (*socket).state) };
    // SAFETY: the reference is the one that the lookup returned, and it is used no more.
    unsafe { bpf_sk_release(socket.cast()) };
    state != LISTENS
}

/// `struct bpf_fib_lookup` (`uapi/linux/bpf.h`), with the members of its unions that are used here.
#[repr(C)]
struct Route {
    family: u8,
    proto: u8,
    source_port: u16,
    destination_port: u16,
    total_len: u16,
    interface: u32,
    tos: u32,
    source: Address,
    destination: Address,
    vlan: u32,
    link_addresses: [u8; 12],
}

const _: () = assert!(size_of::<Route>() == 64);

/// Returns whether the host would send a packet on: it has a route for it that leads to no address of its own, and forwards on
/// this interface at all.
#[inline(never)]
pub fn is_forwarded(ctx: *mut c_void, interface: u32, source: &Address, destination: &Address) -> bool {
    let mut route = Route {
        family: AF_INET6,
        proto: 0,
        source_port: 0,
        destination_port: 0,
        total_len: 0,
        interface,
        tos: 0,
        source: *source,
        destination: *destination,
        vlan: 0,
        link_addresses: [0; 12],
    };
    if is_mapped(destination) {
        route.family = AF_INET;
        to_front(&mut route.source);
        to_front(&mut route.destination);
    }
    // SAFETY: the context is the one of this run; the parameters have the kernel's layout, asserted above.
    let outcome = unsafe { bpf_fib_lookup(ctx, (&raw mut route).cast(), size_of::<Route>() as i32, 0) };
    // A neighbour that is not known yet, or a packet that is too long, is still the way of what is sent on.
    outcome == i64::from(BPF_FIB_LKUP_RET_SUCCESS)
        || outcome == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH)
        || outcome == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED)
}

/// Writes the IPv4 address of a mapped form at the front, where the kernel looks for it, and for no more.
#[inline(always)]
fn to_front(address: &mut Address) {
    let [first, second, third, fourth, .., a, b, c, d] = address;
    (*first, *second, *third, *fourth) = (*a, *b, *c, *d);
}
