//! Rules that span several values, doors or tables. Breaking one is an error.

use std::{collections::HashMap, ops::Range};

use knock_common::pages::LANES;
use toml::Spanned;

use super::{
    MAX_DOORS, MAX_PREFIXES, MAX_SAME_FIRST_STEP, Mode, SessionRule,
    door::{Draft, Sequence},
    problem::Findings,
    rotate, secret, xdp,
};
use crate::{service::Service, step::Step};

pub(super) fn judge(xdp: &xdp::Draft, doors: &[Draft], found: &mut Findings) {
    door_count(doors, found);
    prefix_count(xdp, doors, found);
    names(doors, found);
    first_steps(doors, found);
    sequences_apart(doors, found);
    public_and_hidden(xdp, doors, found);
    sessions_agree(doors, found);
    only_in_deny(xdp, doors, found);
    for sequence in doors.iter().flat_map(Draft::sequences) {
        doubled_steps(&sequence, found);
        scan_order(&sequence, found);
        strength(&sequence, found);
        steps_in_services(&sequence, xdp, doors, found);
    }
    for (door, draft) in doors.iter().filter_map(|door| Some((door, door.rotate.as_ref()?))) {
        rotating_strength(door, draft, found);
        rotating_in_services(door, draft, xdp, doors, found);
    }
}

/// A sequence that changes takes three doors more: one for each of its pages that are live at once.
fn door_count(doors: &[Draft], found: &mut Findings) {
    let changing = |door: &Draft| {
        LANES as usize * (usize::from(door.rotate.is_some()) + usize::from(door.list.is_some()))
    };
    let mut count = 0;
    let Some(door) = doors.iter().find(|door| {
        count += 1 + changing(door);
        count > MAX_DOORS
    }) else {
        return;
    };
    let all: usize = doors.iter().map(|door| 1 + changing(door)).sum();
    let message = format!("{}: {all} doors are too many", door.title);
    let help = format!(
        "a configuration has 1 to {MAX_DOORS} doors, of which `rotate` and `list` take three more each"
    );
    found.error(door.span.clone(), message, help);
}

fn prefix_count(xdp: &xdp::Draft, doors: &[Draft], found: &mut Findings) {
    let all: Vec<_> =
        xdp.allow.iter().chain(doors.iter().flat_map(|door| door.from.iter().chain(&door.to))).collect();
    let Some(first_too_many) = all.get(MAX_PREFIXES) else { return };
    let message = format!("{} prefixes in `allow`, `from` and `to` together are too many", all.len());
    found.error(first_too_many.span(), message, format!("at most {MAX_PREFIXES}: merge neighbouring ones"));
}

fn names(doors: &[Draft], found: &mut Findings) {
    let mut seen: HashMap<&str, Range<usize>> = HashMap::new();
    for name in doors.iter().filter_map(|door| door.name.as_ref()) {
        let Some(first) = seen.get(name.get_ref().as_str()) else {
            seen.insert(name.get_ref(), name.span());
            continue;
        };
        let message = format!("a second door has the name \"{}\"", name.get_ref());
        let line = found.line_of(first);
        found.error(
            name.span(),
            message,
            format!("the first stands on line {line}: each name must be unique"),
        );
    }
}

fn first_steps(doors: &[Draft], found: &mut Findings) {
    let mut users: HashMap<Step, usize> = HashMap::new();
    for (door, step) in doors.iter().filter_map(|door| door.knock.first().map(|step| (door, step))) {
        let count = users.entry(*step.get_ref()).or_default();
        *count += 1;
        if *count == MAX_SAME_FIRST_STEP + 1 {
            let message = format!(
                "{}: \"{}\" is the first step of more than {MAX_SAME_FIRST_STEP} doors",
                door.title,
                step.get_ref()
            );
            let help =
                format!("at most {MAX_SAME_FIRST_STEP} doors may begin with the same step: choose another");
            found.error(step.span(), message, help);
        }
    }
}

/// Whoever knows the longer of two such sequences would open both doors.
fn sequences_apart(doors: &[Draft], found: &mut Findings) {
    let sequences: Vec<Sequence> = doors.iter().flat_map(Draft::sequences).collect();
    for (i, door) in sequences.iter().enumerate() {
        let mut earlier = sequences[..i].iter();
        let Some(other) = earlier.find(|other| one_begins_the_other(&door.steps, &other.steps)) else {
            continue;
        };
        let relation = match door.steps.len().cmp(&other.steps.len()) {
            std::cmp::Ordering::Less => "is the beginning of",
            std::cmp::Ordering::Equal => "is the same as",
            std::cmp::Ordering::Greater => "begins with",
        };
        let message =
            format!("{}: the sequence {} {relation} that of {}", door.title, shown(&door.steps), other.title);
        let help = format!(
            "one must not open both: change a step that both have (line {} and this one)",
            found.line_of(&other.span)
        );
        found.error(door.span.clone(), message, help);
    }
}

fn one_begins_the_other(a: &[Spanned<Step>], b: &[Spanned<Step>]) -> bool {
    a.iter().zip(b).all(|(a, b)| one_packet_can_be_both(*a.get_ref(), *b.get_ref()))
}

/// Equal steps, or echo steps whose conditions do not exclude each other.
fn one_packet_can_be_both(a: Step, b: Step) -> bool {
    let (Step::Icmp { size: size_a, id: id_a }, Step::Icmp { size: size_b, id: id_b }) = (a, b) else {
        return a == b;
    };
    let meet = |a: Option<u16>, b: Option<u16>| a.is_none() || b.is_none() || a == b;
    meet(size_a, size_b) && meet(id_a, id_b)
}

fn public_and_hidden(xdp: &xdp::Draft, doors: &[Draft], found: &mut Findings) {
    for public in &xdp.public {
        let hidden = doors.iter().flat_map(|door| door.opens.iter().map(move |service| (door, service)));
        for (door, service) in hidden.filter(|(_, service)| service.get_ref().overlaps(public.get_ref())) {
            let message = format!("[xdp]: public \"{}\" is hidden by {}", public.get_ref(), door.title);
            let line = found.line_of(&service.span());
            let help = format!(
                "a service is public or behind a door: take it out of `public`, or \"{}\" out of `opens` on line {line}",
                service.get_ref()
            );
            found.error(public.span(), message, help);
        }
    }
}

/// A packet of a session is not known by the door that let it in, only by its service.
fn sessions_agree(doors: &[Draft], found: &mut Findings) {
    for (i, door) in doors.iter().enumerate() {
        let share = |other: &&Draft| {
            let mut services = other.opens.iter();
            services.any(|a| door.opens.iter().any(|b| a.get_ref().overlaps(b.get_ref())))
        };
        let Some(other) = doors[..i].iter().filter(|other| other.sessions != door.sessions).find(share)
        else {
            continue;
        };
        let message =
            format!("{}: `sessions` differs from that of {}, which opens the same", door.title, other.title);
        let help = format!("write the same as for line {}", found.line_of(&other.sessions_span));
        found.error(door.sessions_span.clone(), message, help);
    }
}

/// What has a meaning in deny mode alone, or in no mode at that place.
fn only_in_deny(xdp: &xdp::Draft, doors: &[Draft], found: &mut Findings) {
    let is_deny = xdp.mode == Mode::Deny;
    if let Some(span) = xdp.forward_span.clone().filter(|_| !is_deny) {
        let message = format!("[xdp]: `forward` in mode \"{}\", which lets forwarded packets pass", xdp.mode);
        found.error(span, message, "leave it out, or use mode \"deny\"");
    }
    for public in xdp.public.iter().filter(|public| *public.get_ref() == Service::Any) {
        let help = "name the services that are public; mode \"observe\" lets everything pass";
        found.error(public.span(), "[xdp]: \"any\" in `public` would hide nothing", help);
    }
    for (door, service) in doors.iter().flat_map(|door| door.opens.iter().map(move |one| (door, one))) {
        match service.get_ref() {
            Service::Proto(_) => {
                let message = format!("{}: \"{}\" in `opens`", door.title, service.get_ref());
                let help = "a protocol can be public in mode \"deny\"; a door opens ports, icmp/echo or any";
                found.error(service.span(), message, help);
            }
            Service::Any => any_door(door, service, is_deny, found),
            Service::Tcp(_) | Service::Udp(_) | Service::IcmpEcho => {}
        }
    }
}

fn any_door(door: &Draft, service: &Spanned<Service>, is_deny: bool, found: &mut Findings) {
    if !is_deny {
        let message = format!("{}: \"any\" in `opens` without mode \"deny\"", door.title);
        found.error(service.span(), message, "only that mode hides everything: name the services");
    }
    if door.opens.len() > 1 {
        let message = format!("{}: \"any\" beside other services in `opens`", door.title);
        found.error(service.span(), message, "it takes the others in: let it stand alone");
    }
    if door.sessions == SessionRule::Cut {
        let message = format!("{}: `sessions` is \"cut\" and `opens` is \"any\"", door.title);
        let help = "it would cut the host's own traffic too: use \"keep\", or name the services";
        found.error(door.sessions_span.clone(), message, help);
    }
}

/// A duplicate of a UDP or ICMP packet on the way cannot be told from a second knock; a TCP SYN can.
fn doubled_steps(door: &Sequence, found: &mut Findings) {
    for pair in door.steps.windows(2) {
        let [first, second] = [pair[0].get_ref(), pair[1].get_ref()];
        if first == second && !matches!(first, Step::Tcp(_)) {
            let message = format!("{}: \"{second}\" stands twice in a row", door.title);
            let help = "the network may double a UDP or ICMP packet, which would count as both: \
                        put another step between, or use TCP";
            found.error(pair[1].span(), message, help);
        }
    }
}

/// A wrong port resets an attempt, so a scan gets through only where nothing lies between two steps.
fn scan_order(door: &Sequence, found: &mut Findings) {
    if door.steps.len() < 2 || !door.steps.windows(2).all(|pair| neighbours(&pair[0], &pair[1])) {
        return;
    }
    let message = format!("{}: a port scan opens it: {} are neighbours", door.title, shown(&door.steps));
    let help = "at least two steps in a row must be more than one port apart, or differ in protocol";
    found.error(door.span.clone(), message, help);
}

/// Whether a scan of one protocol meets one port right after the other.
pub(super) fn neighbours(a: &Spanned<Step>, b: &Spanned<Step>) -> bool {
    match (a.get_ref(), b.get_ref()) {
        (Step::Tcp(a), Step::Tcp(b)) | (Step::Udp(a), Step::Udp(b)) => a.get().abs_diff(b.get()) == 1,
        (Step::Tcp(_) | Step::Udp(_) | Step::Icmp { .. }, _) => false,
    }
}

fn strength(door: &Sequence, found: &mut Findings) {
    let steps: Vec<Step> = door.steps.iter().map(|step| *step.get_ref()).collect();
    let bits = secret::bits(&steps);
    if steps.is_empty() || bits >= secret::REFUSE_BELOW || door.allow_weak {
        return;
    }
    let message = format!(
        "{}: the sequence {} has {bits:.0} bits of secret, which can be guessed",
        door.title,
        shown(&door.steps)
    );
    let help = format!(
        "it must have {} or more: a port, an echo size and an echo id count 16 each; or say allow_weak = true",
        secret::REFUSE_BELOW
    );
    found.error(door.span.clone(), message, help);
}

fn rotating_strength(door: &Draft, draft: &rotate::Draft, found: &mut Findings) {
    let Some(bits) = draft.rotate.as_ref().map(rotate::Rotate::bits) else { return };
    if bits >= secret::REFUSE_BELOW || door.allow_weak {
        return;
    }
    let message = format!("{}: a rotating sequence of {bits:.0} bits, which can be guessed", door.title);
    let help = format!(
        "it must have {} or more: more steps, or more ports; or say allow_weak = true",
        secret::REFUSE_BELOW
    );
    found.error(draft.span.clone(), message, help);
}

/// Both sides draw from the same ports, so those that the server cannot use have to be kept out of the range.
fn rotating_in_services(
    door: &Draft,
    draft: &rotate::Draft,
    xdp: &xdp::Draft,
    doors: &[Draft],
    found: &mut Findings,
) {
    let Some(rotate) = &draft.rotate else { return };
    let hidden =
        doors.iter().flat_map(|other| other.opens.iter().map(|one| (one, format!("{} hides", other.title))));
    let public = xdp.public.iter().map(|one| (one, "is public".to_owned()));
    let ports = rotate.shape.ports;
    let drawn = [Service::Tcp(ports.range()), Service::Udp(ports.range())];
    let is_port = |service: &Service| matches!(service, Service::Tcp(_) | Service::Udp(_));
    for (service, what) in hidden.chain(public).filter(|(one, _)| is_port(one.get_ref())) {
        if drawn.iter().any(|ports| ports.overlaps(service.get_ref())) {
            let message = format!(
                "{}: rotate: `ports` {ports} take in \"{}\", which {what}",
                door.title,
                service.get_ref()
            );
            found.error(draft.ports_span.clone(), message, "choose a range without it, on the client too");
        }
    }
}

/// A knock to a hidden or public service is not a knock: it is dropped, or somebody's ordinary traffic.
fn steps_in_services(door: &Sequence, xdp: &xdp::Draft, doors: &[Draft], found: &mut Findings) {
    for step in &door.steps {
        let takes = |service: &&Spanned<Service>| service.get_ref().takes(*step.get_ref());
        let hidden = doors.iter().find_map(|other| Some((&other.title, other.opens.iter().find(takes)?)));
        if let Some((other, service)) = hidden {
            let message = format!(
                "{}: step \"{}\" is in \"{}\", which {other} hides",
                door.title,
                step.get_ref(),
                service.get_ref()
            );
            found.error(step.span(), message, "a step must lie outside every hidden service: choose another");
        }
        let echo = matches!(step.get_ref(), Step::Icmp { .. });
        let public = xdp.public.iter().find(takes).filter(|_| !echo);
        if let Some(service) = public {
            let message =
                format!("{}: step \"{}\" is in public \"{}\"", door.title, step.get_ref(), service.get_ref());
            found.error(step.span(), message, "what is public is never a knock: choose another port");
        }
    }
}

/// The steps as text, for messages.
pub(super) fn shown(steps: &[Spanned<Step>]) -> String {
    let texts: Vec<String> = steps.iter().map(|step| step.get_ref().to_string()).collect();
    texts.join(", ")
}
