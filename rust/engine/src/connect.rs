//! From a host name to a connection: happy eyeballs, TLS settings, and the idle connections of one lane.
use crate::addresses::Addresses;
use crate::client::{Client, Place};
use crate::engine::Engine;
use crate::failure::{Fault, Kind, Retry};
use crate::http::Connection;
use crate::proxy::{Forwarding, Proxy};
use crate::raw::{Listed, SocketEntry, hold_forks};
use crate::slot::{Phase, Slot};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

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

/// Of one lane.
#[derive(Default)]
pub struct Connections {
    idle: RefCell<HashMap<Key, Vec<Connection>>>,
    addresses: RefCell<Addresses>,
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
            let mut idle = self.idle.borrow_mut();
            while let Some(mut connection) = idle.get_mut(&key).and_then(Vec::pop) {
                if connection.is_undisturbed() {
                    client.stats.connections_reused.fetch_add(1, Relaxed);
                    return Ok(connection);
                }
                client.stats.connections_open.fetch_sub(1, Relaxed);
            }
        }
        slot.enter(Phase::Connecting, Some(client.settings.connect_timeout));
        let mut connection = match client.proxies.to(&place.host, place.port) {
            Some(proxy) => {
                self.reach(proxy, client, tls, place, avoid, slot).await.map_err(|fault| proxy.blame(fault))?
            }
            None => self.connect(&place.host, place.port, avoid, slot).await?,
        };
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

    /// A connection by way of a proxy.
    async fn reach(
        &self,
        proxy: &Proxy,
        client: &Client,
        tls: bool,
        place: &Place,
        avoid: Option<SocketAddr>,
        slot: &Slot,
    ) -> Result<Connection, Fault> {
        let mut connection = self.connect(&proxy.host, proxy.port, avoid, slot).await?;
        if tls {
            let request = proxy.connect_request(&place.host, place.port, &client.settings.user_agent);
            let answer = connection.open_tunnel(slot, &request).await?;
            proxy.check_connected(&answer, &place.host, place.port)?;
        } else {
            connection.forward_by(Forwarding::new(proxy, &place.authority));
        }
        Ok(connection)
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
        avoid: Option<SocketAddr>,
        slot: &Slot,
    ) -> Result<Connection, Fault> {
        let mut addresses = watched(slot, self.resolve(host, port)).await?;
        addresses.sort_by_key(|address| avoid == Some(*address));
        let result = watched(slot, happy_eyeballs(&self.addresses, &addresses)).await;
        if result.is_err() {
            self.addresses.borrow_mut().doubt(host, port, Instant::now());
        }
        let stream = result.map_err(|e| Fault { message: format!("{host}:{port}: {}", e.message), ..e })?;
        stream.set_nodelay(true).map_err(Fault::transport)?;
        Ok(Connection::new(stream))
    }

    /// The name's addresses, in the order in which they are to be tried.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Fault> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        if let Some(list) = self.addresses.borrow().fresh(host, port, Instant::now()) {
            return Ok(list);
        }
        let found = match tokio::net::lookup_host((host, port)).await {
            Ok(found) => found.collect(),
            // Subdomains of localhost are this machine by RFC 6761; not every resolver knows.
            Err(_) if host.ends_with(".localhost") => {
                vec![SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)), SocketAddr::from(([127, 0, 0, 1], port))]
            }
            Err(e) => {
                // A resolver that fails for a moment is no reason to stop.
                let stale = self.addresses.borrow().stale(host, port, Instant::now());
                return stale.ok_or_else(|| Fault::transport(format_args!("no address for {host}: {e}")));
            }
        };
        let mut addresses = self.addresses.borrow_mut();
        addresses.learn(host, port, found, Instant::now());
        addresses
            .fresh(host, port, Instant::now())
            .filter(|list| !list.is_empty())
            .ok_or_else(|| Fault::transport(format_args!("no address for {host}")))
    }
}

type Connecting = Pin<Box<dyn Future<Output = std::io::Result<TcpStream>>>>;

/// A socket that is being connected. Its descriptor is in the list that a forked child closes from before a fork can see it,
/// and leaves it when it is closed.
struct Opening(Option<(SocketEntry, Connecting)>);

impl Opening {
    fn to(address: SocketAddr) -> std::io::Result<Opening> {
        let _hold = hold_forks();
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        let entry = SocketEntry::new(socket.as_raw_fd());
        Ok(Opening(Some((entry, Box::pin(socket.connect(address))))))
    }
}

impl Future for Opening {
    type Output = std::io::Result<Listed<TcpStream>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _hold = hold_forks(); // a socket that could not be connected is closed in here
        let Some((_, connecting)) = &mut self.0 else { unreachable!("polled after its end") };
        let result = ready!(connecting.as_mut().poll(cx));
        let Some((entry, _)) = self.0.take() else { unreachable!("looked at above") };
        Poll::Ready(result.map(|stream| Listed::new(entry, stream)))
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let _hold = hold_forks();
        self.0 = None;
    }
}

async fn open(address: SocketAddr) -> std::io::Result<Listed<TcpStream>> {
    Opening::to(address)?.await
}

/// Addresses that connections were begun to. Those that failed, or did not answer for long, are avoided from its end on.
struct Begun<'a> {
    book: &'a RefCell<Addresses>,
    waiting: Vec<(SocketAddr, Instant)>,
}

impl Begun<'_> {
    fn begin(&mut self, address: SocketAddr) {
        self.waiting.push((address, Instant::now()));
    }

    fn failed(&mut self, address: SocketAddr) {
        self.waiting.retain(|(other, _)| *other != address);
        self.book.borrow_mut().avoid(address, Instant::now());
    }

    fn won(&mut self, address: SocketAddr) {
        self.waiting.retain(|(other, _)| *other != address);
        self.book.borrow_mut().welcome(address);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut book = self.book.borrow_mut();
        for (address, since) in &self.waiting {
            if now.saturating_duration_since(*since) >= ATTEMPT_DELAY {
                book.avoid(*address, now);
            }
        }
    }
}

/// The first address that answers; each gets a head start over the next.
async fn happy_eyeballs(book: &RefCell<Addresses>, addresses: &[SocketAddr]) -> Result<Listed<TcpStream>, Fault> {
    if let [only] = addresses {
        return open(*only).await.map_err(Fault::transport);
    }
    let mut begun = Begun { book, waiting: Vec::new() };
    let mut attempts = JoinSet::new();
    let mut left = addresses.iter();
    let mut errors = Vec::new();
    loop {
        if let Some(&address) = left.next() {
            begun.begin(address);
            attempts.spawn_local(async move { (address, open(address).await) });
        }
        let outcome = if left.len() > 0 {
            tokio::time::timeout(ATTEMPT_DELAY, attempts.join_next()).await
        } else {
            Ok(attempts.join_next().await)
        };
        match outcome {
            Err(_) => (), // the next may start
            Ok(Some(Ok((address, Ok(stream))))) => {
                begun.won(address);
                return Ok(stream);
            }
            Ok(Some(Ok((address, Err(e))))) => {
                begun.failed(address);
                errors.push(format!("{}: {e}", address.ip()));
            }
            Ok(Some(Err(e))) => errors.push(e.to_string()),
            Ok(None) => {
                errors.truncate(4); // names of some services have dozens
                return Err(Fault::transport(errors.join(", ")));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn at(ip: [u8; 4], port: u16) -> SocketAddr {
        SocketAddr::from((ip, port))
    }

    /// Runs it as a lane does.
    fn on_lane<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tokio::task::LocalSet::new().run_until(future))
    }

    /// One that takes no connection and refuses none, and what keeps it so.
    fn silent(ip: [u8; 4]) -> (SocketAddr, TcpListener, Vec<std::net::TcpStream>) {
        let listener = TcpListener::bind(at(ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
            waiting.push(stream);
        }
        (address, listener, waiting)
    }

    #[test]
    fn refused_and_silent_addresses_are_passed_over_and_then_avoided() {
        let (quiet, _listener, _waiting) = silent([127, 0, 0, 3]);
        let server = TcpListener::bind(at([127, 0, 0, 1], quiet.port())).unwrap();
        let (good, refused) = (server.local_addr().unwrap(), at([127, 0, 0, 2], quiet.port()));
        let connections = Connections::default();
        connections.addresses.borrow_mut().learn("h", quiet.port(), vec![refused, quiet, good], Instant::now());
        on_lane(async {
            let stream = happy_eyeballs(&connections.addresses, &[refused, quiet, good]).await.expect("one answers");
            assert_eq!(stream.peer_addr().unwrap(), good);
            for _ in 0..6 {
                let order = connections.resolve("h", quiet.port()).await.unwrap();
                assert_eq!((order[0], order.len()), (good, 3));
            }
        });
    }

    #[test]
    fn what_every_address_said_is_told() {
        let port = TcpListener::bind(at([127, 0, 0, 2], 0)).unwrap().local_addr().unwrap().port();
        let book = RefCell::default();
        let addresses = [at([127, 0, 0, 2], port), at([127, 0, 0, 3], port)];
        let fault = on_lane(async { happy_eyeballs(&book, &addresses).await.err().unwrap() });
        assert!(fault.message.contains("127.0.0.2: ") && fault.message.contains("127.0.0.3: "), "{}", fault.message);
    }
}
