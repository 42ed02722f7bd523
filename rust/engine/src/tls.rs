//! TLS between a socket's bytes and a connection's: rustls without buffers of its own, so that one call to the socket takes or
//! gives many records. (With rustls' own buffers each call takes 4 KiB at most.)
use crate::failure::{Fault, Kind, Retry};
use crate::raw::{Span, span_of_mut};
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError};
use std::sync::Arc;

/// Room for four records of the largest size, which come with one call.
const INCOMING: usize = 68 << 10;
/// A message of the handshake, with certificates, has at most 64 KiB; with the records around it it stays far below this.
const INCOMING_MOST: usize = 256 << 10;
/// A record has at most 16 KiB and some bytes around them; with less room than that what has come moves to the front.
const RECORD: usize = 17 << 10;

pub struct Tls {
    session: UnbufferedClientConnection,
    /// From the socket: `incoming[at..filled]` is not decrypted yet.
    incoming: Vec<u8>,
    at: usize,
    filled: usize,
    /// For the socket: `outgoing[sent..written]` is not sent yet.
    outgoing: Vec<u8>,
    sent: usize,
    written: usize,
    /// Decrypted, and more than was asked for.
    plain: Vec<u8>,
    plain_at: usize,
    /// The peer said that it sends no more.
    closed: bool,
    /// Why the session is of no use any more.
    failed: Option<Fault>,
}

#[derive(PartialEq, Eq)]
enum Step {
    Again,
    Written,
    /// Nothing to do before more comes.
    Blocked,
}

impl Tls {
    pub fn new(config: Arc<rustls::ClientConfig>, host: &str) -> Result<Tls, Fault> {
        // IPv6 addresses stand in brackets in a URL, and without them in a certificate.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = rustls::pki_types::ServerName::try_from(bare.to_owned())
            .map_err(|_| Fault::invalid(format!("{host:?} is no host name that a certificate could be for")))?;
        let session = UnbufferedClientConnection::new(config, name)
            .map_err(|e| Fault::new(Kind::Tls, Retry::Never, e.to_string()))?;
        Ok(Tls {
            session,
            incoming: vec![0; INCOMING],
            at: 0,
            filled: 0,
            outgoing: Vec::new(),
            sent: 0,
            written: 0,
            plain: Vec::new(),
            plain_at: 0,
            closed: false,
            failed: None,
        })
    }

    /// Goes on with the handshake as far as what has come allows; -> whether it is done.
    pub fn shake_hands(&mut self) -> Result<bool, Fault> {
        // One step may be the last (TLS 1.2), or leave words that are still to be encoded (1.3).
        while self.step_to_plain(&mut None)? != Step::Blocked {}
        Ok(!self.session.is_handshaking())
    }

    /// Where the socket's next bytes go.
    pub fn free(&mut self) -> Result<Span, Fault> {
        if self.at == self.filled {
            (self.at, self.filled) = (0, 0);
        } else if self.at > 0 && self.incoming.len() - self.filled < RECORD {
            self.incoming.copy_within(self.at..self.filled, 0);
            (self.at, self.filled) = (0, self.filled - self.at);
        }
        if self.filled == self.incoming.len() {
            if self.filled >= INCOMING_MOST {
                return Err(Fault::transport("an endless TLS message"));
            }
            self.incoming.resize(self.filled * 2, 0);
        }
        let free = self.incoming.len() - self.filled;
        Ok(span_of_mut(&mut self.incoming).slice(self.filled, free))
    }

    /// So many bytes have come there.
    pub fn received(&mut self, n: usize) {
        self.filled += n;
    }

    pub fn unsent(&self) -> &[u8] {
        &self.outgoing[self.sent..self.written]
    }

    /// So many of the unsent bytes are on their way.
    pub fn mark_sent(&mut self, n: usize) {
        self.sent += n;
        if self.sent == self.written {
            (self.sent, self.written) = (0, 0);
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether something was decrypted that nobody has asked for.
    pub fn has_plaintext(&self) -> bool {
        self.plain_at < self.plain.len()
    }

    /// Decrypts what has come, up to the span's length; -> bytes. 0: more must come first.
    pub fn decrypt(&mut self, into: Span) -> Result<usize, Fault> {
        let mut done = 0;
        if self.has_plaintext() {
            done = into.len().min(self.plain.len() - self.plain_at);
            into.copy_from(0, &self.plain[self.plain_at..self.plain_at + done]);
            self.plain_at += done;
        }
        let mut rest = std::mem::take(&mut self.plain);
        if self.plain_at == rest.len() {
            rest.clear();
            self.plain_at = 0;
        }
        while done < into.len() && self.at < self.filled {
            let sink = |bytes: &[u8]| {
                let n = bytes.len().min(into.len() - done);
                into.copy_from(done, &bytes[..n]);
                rest.extend_from_slice(&bytes[n..]);
                done += n;
            };
            match self.step(sink, &mut None) {
                Ok(Step::Blocked) => break,
                Ok(_) => (),
                Err(_) => break,
            }
        }
        self.plain = rest;
        match &self.failed {
            Some(fault) if done == 0 => Err(fault.clone()),
            _ => Ok(done),
        }
    }

    /// Looks at what has come without being asked for: tickets, closing, perhaps an answer.
    pub fn look(&mut self) -> Result<(), Fault> {
        while self.at < self.filled && self.step_to_plain(&mut None)? != Step::Blocked {}
        Ok(())
    }

    /// Encrypts behind what is unsent.
    pub fn encrypt(&mut self, data: &[u8]) -> Result<(), Fault> {
        let mut data = Some(data);
        loop {
            match self.step_to_plain(&mut data)? {
                Step::Written => return Ok(()),
                Step::Again => (),
                Step::Blocked => return Err(Fault::transport("TLS takes no data now")),
            }
        }
    }

    fn step_to_plain(&mut self, write: &mut Option<&[u8]>) -> Result<Step, Fault> {
        let mut plain = std::mem::take(&mut self.plain);
        let result = self.step(|bytes| plain.extend_from_slice(bytes), write);
        self.plain = plain;
        result
    }

    /// One state of the session. Plaintext goes to `sink`; `write` is encrypted as soon as the session takes it.
    fn step(&mut self, mut sink: impl FnMut(&[u8]), write: &mut Option<&[u8]>) -> Result<Step, Fault> {
        if let Some(fault) = &self.failed {
            return Err(fault.clone());
        }
        let status = self.session.process_tls_records(&mut self.incoming[self.at..self.filled]);
        let mut discard = status.discard;
        let step = match status.state {
            Err(error) => Err(fault_of(&error)),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    None => break Ok(Step::Again),
                    Some(Err(error)) => break Err(fault_of(&error)),
                    Some(Ok(record)) => {
                        discard += record.discard;
                        sink(record.payload);
                    }
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut self.outgoing, &mut self.written, |to| data.encode(to)).map(|()| Step::Again)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done(); // it is in our own buffer, which is sent in order
                Ok(Step::Again)
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match write.take() {
                Some(data) => encode(&mut self.outgoing, &mut self.written, |to| traffic.encrypt(data, to))
                    .map(|()| Step::Written),
                None => Ok(Step::Blocked),
            },
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                self.closed = true;
                Ok(Step::Blocked)
            }
            Ok(_) => Ok(Step::Blocked),
        };
        self.at += discard;
        step.map_err(|fault| {
            self.encode_alert();
            self.failed.insert(fault).clone()
        })
    }

    /// Tells the peer why, as far as one call to the socket goes. The session has failed: nothing else is asked of it.
    fn encode_alert(&mut self) {
        if !self.session.wants_write() {
            return; // it would look for more records, with its places in the buffer gone wrong, and might panic
        }
        let status = self.session.process_tls_records(&mut self.incoming[self.at..self.filled]);
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state {
            let _ = encode(&mut self.outgoing, &mut self.written, |to| data.encode(to));
        }
    }
}

/// How much room an encoder wants when it has too little.
trait Insufficient: std::fmt::Debug {
    fn required(&self) -> Option<usize>;
}

impl Insufficient for EncodeError {
    fn required(&self) -> Option<usize> {
        if let EncodeError::InsufficientSize(e) = self { Some(e.required_size) } else { None }
    }
}

impl Insufficient for EncryptError {
    fn required(&self) -> Option<usize> {
        if let EncryptError::InsufficientSize(e) = self { Some(e.required_size) } else { None }
    }
}

/// Encodes behind what is written, in as much room as it takes.
fn encode<E: Insufficient>(
    buffer: &mut Vec<u8>,
    written: &mut usize,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), Fault> {
    let broken = |e: E| Fault::transport(format_args!("TLS: {e:?}"));
    *written += match encode(&mut buffer[*written..]) {
        Ok(n) => n,
        Err(e) => match e.required() {
            None => return Err(broken(e)),
            Some(size) => {
                buffer.resize(*written + size, 0);
                encode(&mut buffer[*written..]).map_err(broken)?
            }
        },
    };
    Ok(())
}

fn fault_of(error: &rustls::Error) -> Fault {
    use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
    let (hint, retry) = match error {
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => ("; the endpoint's name must be one that its certificate has", Retry::Never),
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => ("; renew the endpoint's certificate, or set this machine's clock", Retry::Never),
        Error::InvalidCertificate(_) => {
            ("; is ca_bundle (or AWS_CA_BUNDLE) the right one for this endpoint?", Retry::Never)
        }
        Error::PeerIncompatible(_) | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            ("; the endpoint must speak TLS 1.2 or 1.3", Retry::Never)
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            ("; is this an endpoint for http, not https?", Retry::Counted)
        }
        _ => ("", Retry::Counted),
    };
    Fault::new(Kind::Tls, retry, format!("{error}{hint}"))
}

#[cfg(test)]
mod tests;
