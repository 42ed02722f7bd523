//! From a host name to a connection: addresses, happy eyeballs, TLS settings, and the idle connections of one lane.
use crate::client::{Client, Place};
use crate::engine::Engine;
use crate::failure::{Fault, Kind, Retry};
use crate::http::Connection;
use crate::raw::SocketEntry;
use crate::slot::{Phase, Slot};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// How long the addresses of a name are used before they are looked up anew.
const ADDRESSES_LAST: Duration = Duration::from_secs(30);
/// The next address is tried when one has not answered for so long (RFC 8305 calls it the connection attempt delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// S3 closes idle connections after some seconds; a dead one costs a round trip.
const IDLE_LIMIT: Duration = Duration::from_secs(20);

/// Connections are shared by requests of one client to one endpoint.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    client: u64,
    tls: bool,
    host: String,
    port: u16,
}

struct Addresses {
    list: Vec<SocketAddr>,
    next: usize,
    until: Instant,
}

/// Of one lane.
#[derive(Default)]
pub struct Connections {
    idle: RefCell<HashMap<Key, Vec<Connection>>>,
    addresses: RefCell<HashMap<(String, u16), Addresses>>,
}

impl Connections {
    /// An idle connection, or a new one. `fresh`: an idle one has just failed. `avoid`: the address it had is tried last.
    #[allow(clippy::too_many_arguments)]
    pub async fn checkout(
        &self,
        engine: &Engine,
        client: &Client,
        tls: bool,
        place: &Place,
        fresh: bool,
        avoid: Option<SocketAddr>,
        slot: &Slot,
    ) -> Result<Connection, Fault> {
        let key = Key { client: client.id, tls, host: place.host.clone(), port: place.port };
        if !fresh {
            let now = Instant::now();
            let mut idle = self.idle.borrow_mut();
            while let Some(mut connection) = idle.get_mut(&key).and_then(Vec::pop) {
                if connection.is_reusable(now) {
                    client.stats.connections_reused.fetch_add(1, Relaxed);
                    return Ok(connection);
                }
                client.stats.connections_open.fetch_sub(1, Relaxed);
            }
        }
        slot.enter(Phase::Connecting, Some(client.settings.connect_timeout));
        let (stream, entry) = self.connect(&place.host, place.port, avoid, slot).await?;
        let mut connection = Connection::new(stream);
        drop(entry); // the connection has its own
        if tls {
            connection.handshake(engine.tls_of(client)?, &place.host, slot).await?;
        }
        client.stats.connections_opened.fetch_add(1, Relaxed);
        client.stats.connections_open.fetch_add(1, Relaxed);
        Ok(connection)
    }

    pub fn put_back(&self, client: &Client, tls: bool, place: &Place, mut connection: Connection) {
        connection.idle_since = Instant::now();
        let key = Key { client: client.id, tls, host: place.host.clone(), port: place.port };
        self.idle.borrow_mut().entry(key).or_default().push(connection);
    }

    /// Closes what has been idle for long by now; without a time, whatever is idle.
    pub fn close_idle(&self, now: Option<Instant>, closed: impl Fn(u64)) {
        self.idle.borrow_mut().retain(|key, list| {
            list.retain(|c| {
                let keep = now.is_some_and(|now| now.saturating_duration_since(c.idle_since) < IDLE_LIMIT);
                if !keep {
                    closed(key.client);
                }
                keep
            });
            !list.is_empty()
        });
    }

    /// Closes the idle connections of clients that are closed.
    pub fn keep_clients(&self, is_open: impl Fn(u64) -> bool) {
        self.idle.borrow_mut().retain(|key, _| is_open(key.client));
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
        avoid: Option<SocketAddr>,
        slot: &Slot,
    ) -> Result<(TcpStream, SocketEntry), Fault> {
        let mut addresses = watched(slot, self.resolve(host, port)).await?;
        addresses.sort_by_key(|address| avoid == Some(*address));
        let result = watched(slot, happy_eyeballs(&addresses)).await;
        if result.is_err() {
            self.addresses.borrow_mut().remove(&(host.to_owned(), port));
        }
        let (stream, entry) = result.map_err(|e| Fault { message: format!("{host}:{port}: {}", e.message), ..e })?;
        stream.set_nodelay(true).map_err(Fault::transport)?;
        Ok((stream, entry))
    }

    /// The name's addresses, beginning with another one each time.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Fault> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let key = (host.to_owned(), port);
        let known = self.addresses.borrow().get(&key).is_some_and(|a| a.until > Instant::now());
        if !known {
            let looked_up = tokio::net::lookup_host((host, port)).await;
            let list = match looked_up {
                Ok(found) => interleave(found.collect()),
                // Subdomains of localhost are this machine by RFC 6761; not every resolver knows.
                Err(_) if host.ends_with(".localhost") => {
                    vec![
                        SocketAddr::from(([127, 0, 0, 1], port)),
                        SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)),
                    ]
                }
                Err(e) => return Err(Fault::transport(format_args!("no address for {host}: {e}"))),
            };
            if list.is_empty() {
                return Err(Fault::transport(format_args!("no address for {host}")));
            }
            let until = Instant::now() + ADDRESSES_LAST;
            self.addresses.borrow_mut().insert(key.clone(), Addresses { list, next: 0, until });
        }
        let mut addresses = self.addresses.borrow_mut();
        let Some(entry) = addresses.get_mut(&key) else {
            return Err(Fault::transport("the address was just forgotten"));
        };
        let turn = entry.next % entry.list.len();
        entry.next += 1;
        Ok(entry.list[turn..].iter().chain(&entry.list[..turn]).copied().collect())
    }
}

/// IPv6 and IPv4 in turn, IPv6 first, each in the order of the resolver.
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (six, four): (Vec<_>, Vec<_>) = found.into_iter().partition(SocketAddr::is_ipv6);
    let mut list = Vec::new();
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let pair = (six.next(), four.next());
        if pair == (None, None) {
            list.dedup();
            return list;
        }
        list.extend(pair.0.into_iter().chain(pair.1));
    }
}

/// A socket that a forked child closes, from before it is connected.
async fn open(address: SocketAddr) -> std::io::Result<(TcpStream, SocketEntry)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let entry = SocketEntry::new(socket.as_raw_fd());
    Ok((socket.connect(address).await?, entry))
}

/// The first address that answers; each gets a head start over the next.
async fn happy_eyeballs(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketEntry), Fault> {
    if let [only] = addresses {
        return open(*only).await.map_err(Fault::transport);
    }
    let mut attempts = JoinSet::new();
    let mut left = addresses.iter();
    let mut error = None;
    loop {
        if let Some(&address) = left.next() {
            attempts.spawn_local(open(address));
        }
        let outcome = if left.len() > 0 {
            tokio::time::timeout(ATTEMPT_DELAY, attempts.join_next()).await
        } else {
            Ok(attempts.join_next().await)
        };
        match outcome {
            Err(_) => (), // the next may start
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(e)))) => error = Some(Fault::transport(e)),
            Ok(Some(Err(e))) => error = Some(Fault::transport(e)),
            Ok(None) => return Err(error.unwrap_or_else(|| Fault::transport("no address"))),
        }
    }
}

/// A future that ends with the slot's verdict.
pub async fn watched<T>(slot: &Slot, future: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| {
        slot.check(cx)?;
        future.as_mut().poll(cx)
    })
    .await
}

/// TLS settings: the certificates given (PEM), else the system's.
pub fn tls_config(ca_bundle: Option<&[u8]>) -> Result<Arc<rustls::ClientConfig>, Fault> {
    use rustls::pki_types::pem::PemObject;
    let bad = |text: String| Fault::new(Kind::Tls, Retry::Never, text);
    let mut roots = rustls::RootCertStore::empty();
    match ca_bundle {
        Some(pem) => {
            for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| bad(format!("ca_bundle is no PEM file: {e:?}")))?;
                roots.add(certificate).map_err(|e| bad(format!("ca_bundle: {e}")))?;
            }
            if roots.is_empty() {
                return Err(bad("ca_bundle holds no certificate".to_owned()));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(bad("the system has no root certificates: set ca_bundle or AWS_CA_BUNDLE".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
