//! What can go wrong.
use super::Ending;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Refuse with a status. The request's body is read first.
    Status {
        status: u16,
        code: Option<String>,
        message: Option<String>,
        retry_after_s: Option<f64>,
        /// Say the moment instead of the seconds.
        #[serde(default)]
        retry_after_date: bool,
        /// Answer without the XML body.
        #[serde(default)]
        empty: bool,
        /// So many bytes of body instead of the XML.
        #[serde(default)]
        body_bytes: u64,
        /// Close the connection afterwards.
        #[serde(default)]
        close: bool,
    },
    /// Refuse when so many bytes of the request's body have come, and close without reading the rest.
    Early {
        status: u16,
        code: Option<String>,
        #[serde(default)]
        at: u64,
    },
    /// RST: at once, or at byte `at` of the body that the request or its answer has.
    Reset {
        at: Option<u64>,
    },
    /// FIN without an answer.
    Close,
    /// The head of the answer ends after `at` bytes.
    CutHead {
        at: u64,
        #[serde(default)]
        ending: Ending,
        duration_s: Option<f64>,
    },
    /// The body ends early: FIN after `at` bytes.
    Truncate {
        at: u64,
    },
    /// Nothing more comes from byte `at` on (None: no answer at all), for `duration_s` or for good.
    Stall {
        at: Option<u64>,
        duration_s: Option<f64>,
    },
    Delay {
        delay_s: f64,
    },
    /// The connection carries so many bytes a second for this body.
    Slow {
        bytes_per_s: f64,
    },
    /// After this answer the object has other bytes.
    Replace {
        size_bytes: Option<u64>,
        #[serde(default)]
        before: bool,
    },
    /// After this answer the object is gone.
    Delete {
        #[serde(default)]
        before: bool,
    },
    /// One byte of a body is changed on its way.
    Corrupt {
        at: u64,
        #[serde(default = "all_bits")]
        xor: u8,
        #[serde(default)]
        of: Body,
    },
    /// The operation is done, its answer never comes.
    Lost {
        #[serde(default)]
        ending: Ending,
    },
    /// The operation is done, the answer is an error.
    LostStatus {
        status: u16,
        code: Option<String>,
    },
    /// The head comes one byte at a time.
    SplitHead,
    /// An interim answer, such as 103, comes before the real one.
    Interim {
        status: u16,
    },
    /// Headers of the answer are other ones (None: missing).
    Headers {
        headers: BTreeMap<String, Option<String>>,
    },
    /// The body comes chunked, without a Content-Length.
    Chunked {
        /// Longest chunk.
        chunk_bytes: Option<u64>,
        /// Each chunk has an extension.
        #[serde(default)]
        extensions: bool,
        /// Headers follow the last one.
        #[serde(default)]
        trailers: bool,
    },
    /// The body comes as gzip, asked for or not.
    Compressed,
    /// Content-Length is wrong by `delta`.
    WrongLength {
        delta: i64,
    },
    /// The server's clock is off by so much for this request.
    Skew {
        seconds: i64,
    },
    /// The bucket is said to be in another region: 301, 307 or 400.
    Region {
        status: u16,
        region: String,
        #[serde(default)]
        location: Option<String>,
    },
    /// 200, white space for `after_s`, then an error (CopyObject, UploadPartCopy, CompleteMultipartUpload).
    #[serde(rename = "error_in_200")]
    ErrorIn200 {
        code: Option<String>,
        #[serde(default)]
        after_s: f64,
    },
    /// 200, white space for `delay_s`, then the result.
    SlowResult {
        delay_s: f64,
    },
    IgnoreConditions,
    /// GET answers with the whole object.
    IgnoreRange,
    /// GET answers with bytes that begin so much later.
    ShiftRange {
        delta: i64,
    },
    /// DeleteObjects reports that some keys were not deleted, and has not deleted them.
    FailedDeletes {
        /// Glob over the keys of the document.
        keys: String,
        code: Option<String>,
    },
    /// Refuse checksum headers as stores do that do not know them.
    RefuseChecksums,
    /// LIST without order.
    UnorderedListing,
    /// LIST repeats the last key of the page before.
    DuplicateListing,
    /// LIST answers a page without keys that is not the last.
    EmptyListing,
    /// LIST never ends: the last page says that there is another.
    EndlessListing,
    /// LIST says that there is more, and its token leads to the same page again.
    StuckListing,
    /// LIST says that there is more, and not where.
    TokenlessListing,
    /// These bytes are the answer, head and all; then FIN.
    Raw {
        data: String,
    },
    /// Headers without end.
    EndlessHead,
    /// Close the connection after a complete answer.
    CloseAfter {
        /// Having said so.
        #[serde(default)]
        announced: bool,
    },
    /// No connection is accepted for so long, and those that exist are reset.
    Outage {
        duration_s: f64,
        /// Connections are made and stay, and nothing comes.
        #[serde(default)]
        silent: bool,
    },
}

fn all_bits() -> u8 {
    0xff
}

/// Which body a position is in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// The answer's, which may be a part of an object.
    #[default]
    Answer,
    /// The object's, whichever part of it is sent.
    Object,
    /// The request's.
    Upload,
}
