//! The addresses of names: which are known, which comes next, and which are left to the last.
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long the addresses of a name are used before they are looked up anew.
const LAST: Duration = Duration::from_secs(30);
/// For how long an address that did not answer is tried after the others. A service takes such out of its names in about
/// this time.
const AVOIDED: Duration = Duration::from_secs(60);

/// Of all lanes and threads, so that their first connections do not all meet at one address.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Of one lane.
#[derive(Default)]
pub struct Addresses {
    names: HashMap<(String, u16), Name>,
    avoided: HashMap<SocketAddr, Instant>,
}

struct Name {
    list: Vec<SocketAddr>,
    until: Instant,
}

impl Addresses {
    /// The name's addresses, beginning with another one each time; `None`: they are to be looked up.
    pub fn fresh(&self, host: &str, port: u16, now: Instant) -> Option<Vec<SocketAddr>> {
        let name = self.names.get(&(host.to_owned(), port)).filter(|name| name.until > now)?;
        Some(self.ordered(&name.list, now))
    }

    /// Those of old, for when nobody can look them up.
    pub fn stale(&self, host: &str, port: u16, now: Instant) -> Option<Vec<SocketAddr>> {
        self.names.get(&(host.to_owned(), port)).map(|name| self.ordered(&name.list, now))
    }

    fn ordered(&self, list: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let turn = TURN.fetch_add(1, Relaxed) % list.len().max(1);
        let mut ordered: Vec<_> = list[turn..].iter().chain(&list[..turn]).copied().collect();
        ordered.sort_by_key(|address| self.avoided.get(address).is_some_and(|until| *until > now));
        ordered
    }

    /// In the resolver's order.
    pub fn learn(&mut self, host: &str, port: u16, found: Vec<SocketAddr>, now: Instant) {
        self.avoided.retain(|_, until| *until > now);
        let name = Name { list: interleave(found), until: now + LAST };
        self.names.insert((host.to_owned(), port), name);
    }

    /// None of them answered: they are looked up before the next connection.
    pub fn doubt(&mut self, host: &str, port: u16, now: Instant) {
        if let Some(name) = self.names.get_mut(&(host.to_owned(), port)) {
            name.until = now;
        }
    }

    pub fn avoid(&mut self, address: SocketAddr, now: Instant) {
        self.avoided.insert(address, now + AVOIDED);
    }

    pub fn welcome(&mut self, address: SocketAddr) {
        self.avoided.remove(&address);
    }
}

/// IPv6 and IPv4 in turn, IPv6 first, each in the order of the resolver, none twice.
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (six, four): (Vec<_>, Vec<_>) = found.into_iter().partition(SocketAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut list = Vec::new();
    loop {
        let pair = (six.next(), four.next());
        if pair == (None, None) {
            return list;
        }
        for address in pair.0.into_iter().chain(pair.1) {
            if !list.contains(&address) {
                list.push(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn of(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| address(text)).collect()
    }

    #[test]
    fn families_take_turns_and_none_comes_twice() {
        let found = of(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.1:1", "[::1]:1", "10.0.0.3:1"]);
        assert_eq!(interleave(found), of(&["[::1]:1", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]));
    }

    #[test]
    fn every_address_has_its_turn() {
        let (mut addresses, now) = (Addresses::default(), Instant::now());
        addresses.learn("h", 1, of(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]), now);
        // Other tests take turns too.
        let first: HashSet<_> = (0..200).map(|_| addresses.fresh("h", 1, now).unwrap()[0]).collect();
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn what_did_not_answer_comes_last_for_a_minute() {
        let (mut addresses, now) = (Addresses::default(), Instant::now());
        addresses.learn("h", 1, of(&["10.0.0.1:1", "10.0.0.2:1"]), now);
        addresses.avoid(address("10.0.0.1:1"), now);
        let first = |addresses: &Addresses, now| -> HashSet<_> {
            (0..100).map(|_| addresses.stale("h", 1, now).unwrap()[0]).collect()
        };
        assert_eq!(first(&addresses, now), HashSet::from([address("10.0.0.2:1")]));
        assert_eq!(addresses.fresh("h", 1, now).unwrap().len(), 2);
        assert_eq!(first(&addresses, now + AVOIDED).len(), 2);
        addresses.welcome(address("10.0.0.1:1"));
        assert_eq!(first(&addresses, now).len(), 2);
    }

    #[test]
    fn new_addresses_are_used_after_half_a_minute() {
        let (mut addresses, now) = (Addresses::default(), Instant::now());
        addresses.learn("h", 1, of(&["10.0.0.1:1"]), now);
        assert!(addresses.fresh("h", 1, now + LAST - Duration::from_secs(1)).is_some());
        assert!(addresses.fresh("h", 2, now).is_none());
        assert!(addresses.fresh("h", 1, now + LAST).is_none());
        assert!(addresses.stale("h", 1, now + LAST).is_some());
        addresses.learn("h", 1, of(&["10.0.0.9:1"]), now + LAST);
        assert_eq!(addresses.fresh("h", 1, now + LAST), Some(of(&["10.0.0.9:1"])));
        addresses.doubt("h", 1, now + LAST);
        assert!(addresses.fresh("h", 1, now + LAST).is_none());
    }
}
