//! Bodies of uploads: decoded, hashed, verified and kept.
use crate::auth::{ChunkSignatures, Sender};
use crate::checksum::{Algorithm, base64, from_base64};
use crate::config::EtagKind;
use crate::error::{Answer, S3Error};
use crate::incoming::Incoming;
use crate::keep::{Digests, Hashes, Place, RUN_BYTES, Received, Writer};
use crate::request::Request;
use crate::store::content::Content;
use bytes::{Buf, Bytes, BytesMut};

/// Documents and single PUTs may be no longer.
pub const MAX_OBJECT_BYTES: u64 = 5 << 30;

/// What a request says about its body.
pub struct Expected<'a> {
    pub request: &'a Request,
    pub sender: &'a Sender,
    pub etag: EtagKind,
    /// Ignore checksum headers.
    pub ignore_checksums: bool,
    /// Compute this one although none was sent.
    pub wanted: Option<Algorithm>,
}

/// Reads a body to its end.
pub async fn receive(incoming: &mut Incoming<'_>, expected: &Expected<'_>, place: Place) -> Answer<Received> {
    let request = expected.request;
    let mut decoder = Decoder::new(request, expected.sender)?;
    if request.content_length()?.is_none() && !request.is_chunked() {
        return Err(
            S3Error::new(411, "MissingContentLength", "You must provide the Content-Length HTTP header.").into()
        );
    }
    let length = decoder.length.or(request.content_length()?);
    if length.is_some_and(|length| length > MAX_OBJECT_BYTES) {
        let message = "Your proposed upload exceeds the maximum allowed size";
        return Err(S3Error::new(400, "EntityTooLarge", message)
            .with("MaxSizeAllowed", MAX_OBJECT_BYTES.to_string())
            .into());
    }
    let sent = if expected.ignore_checksums { None } else { sent_checksum(request)? };
    let trailing = if expected.ignore_checksums { None } else { trailing_checksum(request) };
    let algorithm = sent.as_ref().map(|(algorithm, _)| *algorithm).or(trailing).or(expected.wanted);
    let payload = request.header("x-amz-content-sha256").unwrap_or("");
    let is_signed = payload.len() == 64 && matches!(expected.sender, Sender::Known(_));
    let needs_md5 = expected.etag == EtagKind::Md5 || request.header("content-md5").is_some();
    let mut hashes = Hashes::new(needs_md5, is_signed, algorithm);
    let mut writer = Writer::new(place, length);
    loop {
        let (buffer, room) = writer.room();
        let before = buffer.len();
        let read = decoder.read(incoming, buffer, room.min(RUN_BYTES)).await?;
        if read == 0 {
            break;
        }
        hashes.update(&buffer[before..]);
        writer.advance(read as u64).await?;
    }
    if length.is_some_and(|length| length != writer.size) {
        return Err(incomplete().into());
    }
    let size = writer.size;
    let trailer = trailing.and_then(|a| Some((a, decoder.trailer(a.header())?)));
    let digests = hashes.finish();
    verify(request, &digests, sent.as_ref(), trailer)?;
    Ok(digests.received(writer.finish().await?, size, expected.etag))
}

fn verify(
    request: &Request,
    digests: &Digests,
    sent: Option<&(Algorithm, Vec<u8>)>,
    trailer: Option<(Algorithm, &str)>,
) -> Result<(), S3Error> {
    let payload = request.header("x-amz-content-sha256").unwrap_or("");
    if digests.sha256.as_ref().is_some_and(|sha256| !sha256.eq_ignore_ascii_case(payload)) {
        let message = "The provided 'x-amz-content-sha256' header does not match what was computed.";
        return Err(S3Error::new(400, "XAmzContentSHA256Mismatch", message));
    }
    if let (Some(md5), Some(header)) = (digests.md5, request.header("content-md5")) {
        match from_base64(header) {
            Some(digest) if digest == md5 => {}
            Some(digest) if digest.len() == 16 => {
                let message = "The Content-MD5 you specified did not match what we received.";
                let error = S3Error::new(400, "BadDigest", message).with("ExpectedDigest", header);
                return Err(error.with("CalculatedDigest", base64(&md5)));
            }
            _ => return Err(S3Error::new(400, "InvalidDigest", "The Content-MD5 you specified is not valid.")),
        }
    }
    let trailer = match trailer {
        Some((algorithm, text)) => {
            let message = format!("Value for {} trailing header is invalid.", algorithm.header());
            Some((algorithm, from_base64(text.trim()).ok_or_else(|| S3Error::invalid_request(message))?))
        }
        None => None,
    };
    for expected in sent.into_iter().chain(&trailer) {
        if digests.checksum.as_ref() != Some(expected) {
            let name = expected.0.name();
            let message = format!("The {name} you specified did not match the calculated checksum.");
            return Err(S3Error::new(400, "BadDigest", message));
        }
    }
    Ok(())
}

/// Reads the body of a request whose body is a document.
pub async fn receive_document(incoming: &mut Incoming<'_>, expected: &Expected<'_>) -> Answer<Bytes> {
    const MAX_BYTES: u64 = 4 << 20;
    if expected.request.content_length()?.is_some_and(|length| length > MAX_BYTES) {
        return Err(S3Error::new(400, "MaxMessageLengthExceeded", "Your request was too big.").into());
    }
    let received = receive(incoming, expected, Place::Memory).await?;
    let Content::Memory(segments) = received.content else { return Ok(Bytes::new()) };
    let mut document = BytesMut::new();
    segments.iter().for_each(|bytes| document.extend_from_slice(bytes));
    Ok(document.freeze())
}

fn incomplete() -> S3Error {
    let message = "You did not provide the number of bytes specified by the Content-Length HTTP header.";
    S3Error::new(400, "IncompleteBody", message)
}

/// The checksum in the request's head.
fn sent_checksum(request: &Request) -> Result<Option<(Algorithm, Vec<u8>)>, S3Error> {
    let mut found = None;
    for (name, value) in request.headers() {
        let Some(algorithm) = Algorithm::of_header(name) else { continue };
        let invalid = || S3Error::invalid_request(format!("Value for {name} header is invalid."));
        let digest = from_base64(value).filter(|d| d.len() == algorithm.digest(b"").len()).ok_or_else(invalid)?;
        if found.replace((algorithm, digest)).is_some() {
            return Err(S3Error::invalid_request("Expecting a single x-amz-checksum- header."));
        }
    }
    Ok(found)
}

fn trailing_checksum(request: &Request) -> Option<Algorithm> {
    request.header("x-amz-trailer")?.split(',').find_map(|name| Algorithm::of_header(name.trim()))
}

/// Takes the aws-chunked coding off a body, where there is one.
struct Decoder {
    chunked: Option<AwsChunked>,
    /// Of the decoded body.
    length: Option<u64>,
}

struct AwsChunked {
    raw: BytesMut,
    state: State,
    signatures: Option<Box<ChunkSignatures>>,
    signature: String,
    trailers: Vec<(String, String)>,
}

enum State {
    Head,
    Data(u64),
    End { last: bool },
    Trailers,
    Done,
}

impl Decoder {
    fn new(request: &Request, sender: &Sender) -> Result<Self, S3Error> {
        let payload = request.header("x-amz-content-sha256").unwrap_or("");
        if !payload.starts_with("STREAMING-") {
            let known = payload.is_empty() || payload == "UNSIGNED-PAYLOAD" || payload.len() == 64;
            let message = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, \
                           STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.";
            return if known {
                Ok(Self { chunked: None, length: None })
            } else {
                Err(S3Error::invalid_argument(message))
            };
        }
        let signatures = match sender {
            Sender::Known(signed) if payload.starts_with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD") => {
                Some(Box::new(ChunkSignatures::new((**signed).clone())))
            }
            _ => None,
        };
        let length = request.header("x-amz-decoded-content-length").and_then(|text| text.parse().ok());
        if length.is_none() {
            let message = "You must provide the x-amz-decoded-content-length HTTP header.";
            return Err(S3Error::new(411, "MissingContentLength", message));
        }
        let chunked = AwsChunked {
            raw: BytesMut::new(),
            state: State::Head,
            signatures,
            signature: String::new(),
            trailers: Vec::new(),
        };
        Ok(Self { chunked: Some(chunked), length })
    }

    fn trailer(&self, name: &str) -> Option<&str> {
        let trailers = &self.chunked.as_ref()?.trailers;
        trailers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    async fn read(&mut self, incoming: &mut Incoming<'_>, out: &mut BytesMut, most: usize) -> Answer<usize> {
        match &mut self.chunked {
            None => Ok(incoming.read(out, most).await?),
            Some(chunked) => chunked.read(incoming, out, most).await,
        }
    }
}

impl AwsChunked {
    async fn read(&mut self, incoming: &mut Incoming<'_>, out: &mut BytesMut, most: usize) -> Answer<usize> {
        loop {
            match self.state {
                State::Head => {
                    let line = self.line(incoming).await?;
                    let (size, extension) = line.split_once(';').unwrap_or((&line, ""));
                    let size = u64::from_str_radix(size.trim(), 16).map_err(|_| incomplete())?;
                    self.signature = extension.trim().strip_prefix("chunk-signature=").unwrap_or("").to_owned();
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                    if size == 0 {
                        self.check_chunk()?;
                    }
                }
                State::Data(left) => {
                    let most = most.min(usize::try_from(left).unwrap_or(most));
                    let before = out.len();
                    let read = if self.raw.is_empty() {
                        incoming.read(out, most).await?
                    } else {
                        let length = most.min(self.raw.len());
                        out.extend_from_slice(&self.raw[..length]);
                        self.raw.advance(length);
                        length
                    };
                    if read == 0 {
                        return Err(incomplete().into());
                    }
                    if let Some(signatures) = &mut self.signatures {
                        signatures.update(&out[before..]);
                    }
                    let left = left - read as u64;
                    self.state = if left == 0 { State::End { last: false } } else { State::Data(left) };
                    return Ok(read);
                }
                State::End { last } => {
                    self.line(incoming).await?;
                    if !last {
                        self.check_chunk()?;
                    }
                    self.state = if last { State::Done } else { State::Head };
                }
                State::Trailers => {
                    let line = self.line(incoming).await?;
                    if let Some((name, value)) = line.split_once(':') {
                        self.trailers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
                    } else if line.is_empty() {
                        self.check_trailers()?;
                        self.state = State::Done;
                        // Nothing may follow; what HTTP's own chunks need to end is read here.
                        incoming.skip(u64::MAX).await?;
                    }
                }
                State::Done => return Ok(0),
            }
        }
    }

    fn check_chunk(&mut self) -> Result<(), S3Error> {
        let Some(signatures) = &mut self.signatures else { return Ok(()) };
        if signatures.end_chunk(&self.signature) { Ok(()) } else { Err(wrong_chunk_signature()) }
    }

    fn check_trailers(&mut self) -> Result<(), S3Error> {
        let Some(signatures) = &mut self.signatures else { return Ok(()) };
        let (signature, others): (Vec<_>, Vec<_>) =
            self.trailers.iter().partition(|(name, _)| name == "x-amz-trailer-signature");
        let Some((_, signature)) = signature.first() else { return Ok(()) };
        let canonical: String = others.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        if signatures.end_trailers(&canonical, signature) { Ok(()) } else { Err(wrong_chunk_signature()) }
    }

    /// A line of the coding. The end of the body counts as an empty line: some clients leave out the last one.
    async fn line(&mut self, incoming: &mut Incoming<'_>) -> Answer<String> {
        const MAX_LINE_BYTES: usize = 8 << 10;
        loop {
            if let Some(end) = self.raw.iter().position(|byte| *byte == b'\n') {
                let line = self.raw.split_to(end + 1);
                let text = std::str::from_utf8(&line).map_err(|_| incomplete())?;
                return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
            }
            if self.raw.len() > MAX_LINE_BYTES {
                return Err(incomplete().into());
            }
            if incoming.read(&mut self.raw, 4096).await? == 0 {
                return if matches!(self.state, State::Trailers) {
                    Ok(String::new())
                } else {
                    Err(incomplete().into())
                };
            }
        }
    }
}

fn wrong_chunk_signature() -> S3Error {
    let message = "The chunk signature we calculated does not match the signature you provided.";
    S3Error::new(403, "SignatureDoesNotMatch", message)
}
