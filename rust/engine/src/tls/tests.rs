//! A server of rustls' on the other side of two byte streams that are cut, mutilated and swapped at will.
use super::*;
use crate::raw::span_of_mut;
use crate::spoilt::Random;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{HandshakeKind, ServerConnection, SupportedProtocolVersion};
use std::io::{Read, Write};

/// Configurations of both sides; certificates cost a millisecond each.
struct Ends {
    client: Arc<rustls::ClientConfig>,
    server: rustls::ServerConfig,
}

fn ends(version: &'static SupportedProtocolVersion) -> Ends {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone());
    let server = server.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Ends {
        client: Arc::new(client.with_root_certificates(roots).with_no_client_auth()),
        server: server.with_single_cert(vec![made.cert.der().clone()], key).unwrap(),
    }
}

/// Both sides, and what is on its way to the client.
struct Pair {
    client: Tls,
    server: ServerConnection,
    wire: Vec<u8>,
    /// What the server got.
    heard: Vec<u8>,
}

impl Pair {
    fn new(client: &Arc<rustls::ClientConfig>, server: &Arc<rustls::ServerConfig>) -> Pair {
        let client = Tls::new(client.clone(), "localhost").unwrap();
        Pair { client, server: ServerConnection::new(server.clone()).unwrap(), wire: Vec::new(), heard: Vec::new() }
    }

    fn of(ends: Ends) -> Pair {
        Pair::new(&ends.client, &Arc::new(ends.server))
    }

    /// The client's bytes to the server, and the server's onto the wire.
    fn serve(&mut self) -> Result<(), rustls::Error> {
        while !self.client.unsent().is_empty() {
            let n = self.server.read_tls(&mut self.client.unsent()).unwrap();
            self.client.mark_sent(n);
            self.server.process_new_packets()?;
            let _ = self.server.reader().read_to_end(&mut self.heard); // WouldBlock at its end
        }
        while self.server.wants_write() {
            self.server.write_tls(&mut self.wire).unwrap();
        }
        Ok(())
    }

    /// At most so many bytes of the wire reach the client; -> how many.
    fn deliver(&mut self, most: usize) -> Result<usize, Fault> {
        let free = self.client.free()?;
        let n = most.min(free.len()).min(self.wire.len());
        free.copy_from(0, &self.wire[..n]);
        self.wire.drain(..n);
        self.client.received(n);
        Ok(n)
    }

    fn shake_hands(&mut self, step: usize) {
        while !self.client.shake_hands().unwrap() {
            self.serve().unwrap();
            assert!(self.deliver(step).unwrap() > 0, "both wait");
        }
        self.serve().unwrap();
        assert!(!self.server.is_handshaking());
    }

    /// All that is on the wire, decrypted into a span of so many bytes at a time.
    fn read(&mut self, step: usize, room: usize) -> Result<Vec<u8>, Fault> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
        loop {
            let n = self.client.decrypt(span_of_mut(&mut buffer))?;
            all.extend_from_slice(&buffer[..n]);
            if n == 0 && (self.wire.is_empty() || self.deliver(step)? == 0) {
                return Ok(all);
            }
        }
    }

    fn say(&mut self, data: &[u8]) {
        self.server.writer().write_all(data).unwrap();
        self.serve().unwrap();
    }

    fn hear(&mut self) -> Vec<u8> {
        self.serve().unwrap();
        std::mem::take(&mut self.heard)
    }
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn whatever_the_cuts() {
    for version in VERSIONS {
        for (step, room) in [(1, 1), (1, 5000), (7, 3), (5000, 100), (usize::MAX, 1 << 20), (usize::MAX, 10)] {
            let mut pair = Pair::of(ends(version));
            pair.shake_hands(step);
            let data = pattern(40_000);
            pair.client.encrypt(&data).unwrap();
            assert!(pair.hear() == data);
            pair.say(&data);
            assert!(pair.read(step, room).unwrap() == data, "{version:?} {step} {room}");
            assert!(!pair.client.is_closed());
        }
    }
}

#[test]
fn records_of_one_byte() {
    for version in VERSIONS {
        let mut pair = Pair::of(ends(version));
        pair.shake_hands(usize::MAX);
        let data = pattern(3000);
        for byte in &data {
            pair.say(&[*byte]);
        }
        assert!(pair.read(usize::MAX, 1000).unwrap() == data);
        assert!(pair.client.incoming.len() <= INCOMING);
    }
}

#[test]
fn certificates_and_handshakes_in_small_records() {
    for version in VERSIONS {
        let mut ends = ends(version);
        ends.server.max_fragment_size = Some(64);
        let mut pair = Pair::of(ends);
        pair.shake_hands(3);
        pair.say(&pattern(5000));
        assert!(pair.read(100, 999).unwrap() == pattern(5000));
    }
}

#[test]
fn keys_are_renewed_on_either_side() {
    let mut pair = Pair::of(ends(&rustls::version::TLS13));
    pair.shake_hands(usize::MAX);
    for round in 0..200 {
        pair.server.refresh_traffic_keys().unwrap();
        pair.say(&[round]);
        assert_eq!(pair.read(usize::MAX, 100).unwrap(), [round]);
        pair.client.encrypt(&[round, 1]).unwrap();
        assert_eq!(pair.hear(), [round, 1]);
    }
    // Many without a word of ours between them: the answers do not pile up.
    for _ in 0..1000 {
        pair.server.refresh_traffic_keys().unwrap();
        pair.serve().unwrap();
        pair.say(b"x");
        pair.read(usize::MAX, 100).unwrap();
    }
    assert!(pair.client.unsent().len() < 64 << 10, "{}", pair.client.unsent().len());
}

#[test]
fn a_second_connection_resumes() {
    for version in VERSIONS {
        let mut ends = ends(version);
        ends.server.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
        let server = Arc::new(ends.server);
        let mut first = Pair::new(&ends.client, &server);
        first.shake_hands(usize::MAX);
        first.say(b"with tickets");
        first.read(usize::MAX, 100).unwrap();
        let mut second = Pair::new(&ends.client, &server);
        second.shake_hands(usize::MAX);
        second.say(b"x");
        assert_eq!(second.read(usize::MAX, 100).unwrap(), b"x");
        assert_eq!(second.server.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[test]
fn the_end_comes_after_what_was_said() {
    for version in VERSIONS {
        let mut pair = Pair::of(ends(version));
        pair.shake_hands(usize::MAX);
        pair.say(b"last words");
        pair.server.send_close_notify();
        pair.serve().unwrap();
        assert_eq!(pair.read(usize::MAX, 4).unwrap(), b"last words");
        assert!(pair.client.is_closed());
        assert_eq!(pair.read(usize::MAX, 4).unwrap(), b"");
        // Whatever follows a close_notify is not looked at.
        pair.wire = pattern(100);
        assert_eq!(pair.read(usize::MAX, 4).unwrap(), b"");
    }
}

#[test]
fn alerts_end_it_after_what_was_said() {
    let mut pair = Pair::of(ends(&rustls::version::TLS12));
    pair.shake_hands(usize::MAX);
    pair.say(b"first");
    pair.wire.extend_from_slice(b"\x15\x03\x03\x00\x02\x02\x28"); // not encrypted: a decryption error
    let mut buffer = [0; 100];
    pair.deliver(usize::MAX).unwrap();
    assert_eq!(pair.client.decrypt(span_of_mut(&mut buffer)).unwrap(), 5);
    for _ in 0..3 {
        assert_eq!(pair.client.decrypt(span_of_mut(&mut buffer)).unwrap_err().kind, Kind::Tls);
        assert!(pair.client.look().is_err() && pair.client.encrypt(b"x").is_err());
    }
}

#[test]
fn endless_messages_end() {
    let endless: [(&str, &[u8]); 4] = [
        ("handshake", b"\x16\x03\x03\x40\x00\x02\xff\xff\xff"),
        ("change_cipher_spec", b"\x14\x03\x03\x00\x01\x01"),
        ("empty", b"\x16\x03\x03\x00\x00"),
        ("warnings", b"\x15\x03\x03\x00\x02\x01\x70"),
    ];
    for (name, record) in endless {
        let mut pair = Pair::of(ends(&rustls::version::TLS13));
        let _ = pair.client.shake_hands();
        let mut record = record.to_vec();
        let size = 5 + usize::from(record[3]) * 256 + usize::from(record[4]);
        record.resize(size, 0);
        let ended = (0..4000).any(|_| {
            pair.wire.extend_from_slice(&record);
            pair.deliver(usize::MAX).is_err() || pair.client.shake_hands().is_err()
        });
        assert!(ended, "{name}");
        assert!(pair.client.incoming.len() <= INCOMING_MOST);
    }
}

fn mutilate(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(8) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.below(256) as u8,
        2 => bytes.truncate(at),
        3 => {
            let end = at + random.below(bytes.len() - at).min(40);
            bytes.drain(at..end);
        }
        4 => {
            let end = at + random.below(bytes.len() - at);
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        5 => {
            let record = [20 + random.below(5) as u8, 3, 3, random.below(2) as u8, random.below(60) as u8];
            bytes.splice(at..at, record);
        }
        6 => {
            // The header of its first record: type and length.
            bytes[0] = 20 + random.below(6) as u8;
        }
        _ => {
            if bytes.len() > 4 {
                bytes[3 + random.below(2)] = random.below(256) as u8;
            }
        }
    }
}

/// Whatever comes, and whatever is asked for afterwards: no panic, no endless loop, no memory beyond bounds.
#[test]
fn broken_streams_of_all_kinds() {
    let seconds = std::env::var("S3DATASET_FUZZ_SECONDS").ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = seconds.map_or(600, |seconds| seconds * 200);
    let servers: Vec<_> = VERSIONS
        .iter()
        .flat_map(|version| {
            [None, Some(64)].map(|size| {
                let mut ends = ends(version);
                ends.server.max_fragment_size = size;
                (ends.client, Arc::new(ends.server))
            })
        })
        .collect();
    let mut buffer = vec![0; 30_000];
    for seed in 0..rounds {
        let mut random = Random::new(seed);
        let (client, server) = &servers[random.below(servers.len())];
        let mut pair = Pair::new(client, server);
        let begin = random.below(40); // mutilations may begin in the handshake or behind it
        for turn in 0..60 {
            match random.below(6) {
                0 => drop(pair.client.look()),
                1 => drop(pair.client.encrypt(&pattern(random.below(20_000)))),
                2 | 3 => drop(pair.client.shake_hands()),
                _ => {
                    let room = random.below(buffer.len());
                    drop(pair.client.decrypt(span_of_mut(&mut buffer[..room])));
                }
            }
            if pair.serve().is_ok() && !pair.server.is_handshaking() && random.below(3) == 0 {
                let _ = pair.server.writer().write_all(&pattern(random.below(30_000)));
                if random.below(4) == 0 {
                    let _ = pair.server.refresh_traffic_keys();
                }
                let _ = pair.serve();
            }
            while pair.server.wants_write() {
                pair.server.write_tls(&mut pair.wire).unwrap();
            }
            if turn >= begin && random.below(2) == 0 {
                mutilate(&mut pair.wire, &mut random);
            }
            let most = if random.below(2) == 0 { random.below(400) } else { usize::MAX };
            if !pair.client.has_plaintext() {
                let _ = pair.deliver(most); // nobody receives more while there is something to take
            }
            let held = pair.client.incoming.len().max(pair.client.plain.len());
            assert!(held < 2 * INCOMING_MOST, "{held} bytes"); // room is doubled up to there
        }
    }
}
