//! Threads, listeners, TLS.
use crate::config::{Config, ReadyInfo};
use crate::connection::Connection;
use crate::control;
use crate::exchange::serve;
use crate::faults::{CONNECT, Call, Ending, Outage};
use crate::server::{Presence, Server};
use crate::stats::Stats;
use crate::stream::Stream;
use crate::tls;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

async fn handle(
    server: Arc<Server>,
    socket: StdStream,
    tls: Option<TlsAcceptor>,
    mut presence: watch::Receiver<Presence>,
) {
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let id = server.stats.connection_opened();
    let mut connection = Connection::new(Stream::Plain(socket), server.stats.clone());
    let ends = tokio::select! {
        // A client that goes away is no error of the server's.
        _ = live(&server, &mut connection, tls, id) => false,
        _ = presence.changed() => true,
    };
    if ends {
        // A server that is silent keeps its connections until it wakes.
        let _ = presence.wait_for(|presence| *presence == Presence::Here).await;
        connection.end(Ending::Reset, None).await;
    }
    server.stats.connection_closed();
}

/// A connection from its first byte on.
async fn live(server: &Server, connection: &mut Connection, tls: Option<TlsAcceptor>, id: u64) -> io::Result<()> {
    let effects = server.plan.effects(&Call { operation: CONNECT, bucket: "", key: "", identity: 0 });
    server.stats.faults.fetch_add(effects.names.len() as u64, Ordering::Relaxed);
    if let Some(outage) = effects.outage {
        server.outage(outage);
    }
    if !effects.delay.is_zero() {
        tokio::time::sleep(effects.delay).await;
    }
    if let Some(ending) = effects.ending {
        connection.end(ending, effects.stall).await;
        return Ok(());
    }
    if let Some(raw) = &effects.raw {
        connection.write_raw(raw.as_bytes()).await?;
        connection.close().await;
        return Ok(());
    }
    if let Some(acceptor) = tls {
        connection.stream.encrypt(&acceptor).await?;
    }
    serve(server, connection, id).await
}

fn listen(port: u16) -> io::Result<StdListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    // So that a port can be taken again while connections of an earlier server linger.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts connections and hands them to the threads in turn.
async fn accept(
    server: Arc<Server>,
    listener: StdListener,
    threads: Vec<Handle>,
    tls: Option<TlsAcceptor>,
    mut outages: mpsc::UnboundedReceiver<Outage>,
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let mut listener = TcpListener::from_std(listener)?;
    let mut turn = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let socket = match accepted {
                    Ok((socket, _)) => socket,
                    Err(_) => {
                        // Out of file descriptors: wait until some are free.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                };
                socket.set_nodelay(true)?;
                let handling = handle(server.clone(), socket.into_std()?, tls.clone(), server.presence.subscribe());
                threads[turn % threads.len()].spawn(handling);
                turn += 1;
            }
            Some(outage) = outages.recv() => {
                if outage.silent {
                    server.presence.send_replace(Presence::Silent);
                    tokio::time::sleep(outage.duration).await;
                    server.presence.send_replace(Presence::Here);
                    continue;
                }
                drop(listener);
                server.presence.send_replace(Presence::Here);
                tokio::time::sleep(outage.duration).await;
                listener = loop {
                    match listen(port).and_then(TcpListener::from_std) {
                        Ok(listener) => break listener,
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                };
            }
        }
    }
}

/// The control API on its own port: no TLS, no faults, not counted, alive in an outage.
async fn accept_control(server: Arc<Server>, listener: StdListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        let server = server.clone();
        tokio::spawn(async move {
            let mut connection = Connection::new(Stream::Plain(socket), Arc::new(Stats::new(0)));
            while let Ok(Some(request)) = connection.next_request(None).await {
                if !matches!(control::serve(&server, &mut connection, &request).await, Ok(true)) {
                    connection.close().await;
                    break;
                }
            }
        });
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

pub fn run(config: Config, on_ready: impl FnOnce(&ReadyInfo)) -> io::Result<()> {
    let (server, outage_requests) = Server::new(config.clone())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if config.threads > 0 { config.threads } else { (cores / 2).max(1) };
    let listener = listen(config.port)?;
    let control = listen(config.control_port)?;
    let port = listener.local_addr()?.port();
    let (ca_file, acceptor) = if config.tls {
        let default = || std::env::temp_dir().join(format!("local-s3-ca-{}-{port}.pem", std::process::id()));
        let ca_file: PathBuf = config.ca_file.clone().unwrap_or_else(default);
        let names: Vec<String> = config.buckets.iter().map(|b| b.name.clone()).collect();
        let acceptor = tls::acceptor(&names, &ca_file)?;
        (Some(ca_file), Some(acceptor))
    } else {
        (None, None)
    };

    let (stop, stopped) = watch::channel(false);
    let main = runtime()?;
    let mut handles = vec![main.handle().clone()];
    let mut others = Vec::new();
    for number in 1..threads {
        let worker = runtime()?;
        handles.push(worker.handle().clone());
        let mut stopped = stopped.clone();
        let thread = std::thread::Builder::new().name(format!("local-s3-{number}"));
        others.push(thread.spawn(move || {
            worker.block_on(async {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            });
        })?);
    }
    let credential = config.credentials.first().cloned().unwrap_or_default();
    let ready = ReadyInfo {
        endpoint: format!("{}://127.0.0.1:{port}", if config.tls { "https" } else { "http" }),
        port,
        control: format!("http://127.0.0.1:{}", control.local_addr()?.port()),
        region: config.region.clone(),
        access_key: credential.access_key,
        secret_key: credential.secret_key,
        ca_bundle: ca_file.as_ref().map(|path| path.to_string_lossy().into_owned()),
        pid: std::process::id(),
    };
    let result = main.block_on(async {
        let accepting = tokio::spawn(accept(server.clone(), listener, handles, acceptor, outage_requests));
        let controlling = tokio::spawn(accept_control(server.clone(), control));
        on_ready(&ready);
        tokio::select! {
            ended = accepting => ended.map_err(io::Error::other)?,
            ended = controlling => ended.map_err(io::Error::other)?,
            () = end_of_stdin(config.end_with_stdin) => Ok(()),
        }
    });
    stop.send_replace(true);
    for thread in others {
        // A thread that panicked has ended as well.
        let _ = thread.join();
    }
    if let Some(ca_file) = ca_file {
        // Its owner may have removed it already.
        let _ = std::fs::remove_file(ca_file);
    }
    result
}

async fn end_of_stdin(watched: bool) {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    if !watched {
        return std::future::pending().await;
    }
    std::thread::spawn(move || {
        let mut sink = [0; 256];
        let mut stdin = io::stdin().lock();
        while matches!(stdin.read(&mut sink), Ok(read) if read > 0) {}
        drop(ended);
    });
    // An error means that the sender was dropped, which is the signal.
    let _ = end.await;
}
