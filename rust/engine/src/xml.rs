//! The XML of S3: what the service answers, and the two documents that are sent to it.
//!
//! Answers may come from any server, so reading is bounded: no entity but XML's own five is
//! expanded, document types are refused, nesting is limited, and what is kept is never larger than
//! the document. Elements may come in any order and any namespace; unknown ones are skipped.

mod answer;
mod list;
mod scan;
mod write;

use std::fmt;

pub use answer::{
    CompleteResult, DeleteOutcome, ServiceError, Session, parse_complete, parse_copy, parse_delete, parse_error,
    parse_initiate, parse_session,
};
pub use list::{ListPage, NO_STORAGE_CLASS, RestoreStatus, Upload, UploadPage, parse_list, parse_uploads};
pub use write::{Part, write_complete, write_delete};

/// Why a document could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XmlError {
    /// The document breaks off or is no XML; `at` is the offset in bytes.
    Malformed { at: usize, reason: &'static str },
    /// Another document than the operation answers with, such as a proxy's HTML page.
    UnexpectedRoot { expected: &'static str, found: String },
    /// A document of the right kind without an element that the operation cannot do without.
    Missing { element: &'static str },
    /// An element whose text is not what it should be, such as a size that is no number.
    BadValue { element: &'static str, value: String },
    /// A key in a listing that is not UTF-8: these bytes. Its object is out of reach of this library.
    KeyNotUtf8 { key: Vec<u8> },
    /// A key that XML 1.0 has no way to write, so that it must be sent in a request of its own.
    Inexpressible { key: String },
    /// The service answered with an error where a result was expected.
    Service(Box<ServiceError>),
}

impl fmt::Display for XmlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { at, reason } => write!(formatter, "malformed XML at byte {at}: {reason}"),
            Self::UnexpectedRoot { expected, found } => {
                write!(formatter, "expected a <{expected}> document, not <{found}>: is the endpoint an S3 service?")
            }
            Self::Missing { element } => write!(formatter, "the answer has no <{element}>"),
            Self::BadValue { element, value } => write!(formatter, "<{element}> cannot be {value:?}"),
            Self::KeyNotUtf8 { key } => write!(formatter, "the key b\"{}\" is not UTF-8", key.escape_ascii()),
            Self::Inexpressible { key } => {
                write!(
                    formatter,
                    "the key {key:?} has a control character that XML cannot express: delete it by itself"
                )
            }
            Self::Service(error) => write!(formatter, "{}: {}", error.code, error.message),
        }
    }
}

impl std::error::Error for XmlError {}

/// The beginning of a text from outside, for an error message.
fn excerpt(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator (xorshift64*), so that a failure repeats.
    pub(super) struct Random(u64);

    impl Random {
        pub(super) fn new(seed: u64) -> Self {
            Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
        }

        pub(super) fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
        }
    }

    const DOCUMENTS: [&[u8]; 6] = [
        b"<?xml version=\"1.0\"?><ListBucketResult xmlns='u'><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
          <NextContinuationToken>t</NextContinuationToken><Contents><Key>a%20b+%C3%A9</Key><ETag>&quot;x&quot;</ETag><Size>1</Size>\
          <LastModified>2009-10-12T17:50:30.000Z</LastModified><StorageClass>STANDARD</StorageClass><RestoreStatus>\
          <IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus></Contents><CommonPrefixes><Prefix>p/</Prefix>\
          </CommonPrefixes></ListBucketResult>",
        b"<Error><Code>NoSuchKey</Code><Message>&lt;m&gt;</Message><ActualObjectSize>5</ActualObjectSize></Error>",
        b" <CompleteMultipartUploadResult><ETag>\"x\"</ETag><!-- c --><![CDATA[y]]></CompleteMultipartUploadResult>",
        b"<DeleteResult><Error><Key>&#x1F;</Key><Code>c</Code></Error></DeleteResult>",
        b"<ListMultipartUploadsResult><Upload><Key>k</Key><UploadId>u</UploadId></Upload></ListMultipartUploadsResult>",
        b"<CreateSessionResult><Credentials><SessionToken>t</SessionToken></Credentials></CreateSessionResult>",
    ];

    fn parse_all(xml: &[u8]) {
        if let Ok(page) = parse_list(xml) {
            assert!(std::str::from_utf8(&page.keys).is_ok());
            for column in [page.sizes.len(), page.mtimes.len(), page.etag_ends.len(), page.storage_classes.len()] {
                assert_eq!(column, page.len());
            }
            for index in 0..page.len() {
                assert!(std::str::from_utf8(page.key(index)).is_ok());
                assert!(std::str::from_utf8(page.etag(index)).is_ok());
            }
            assert!(page.keys.len() + page.etags.len() <= xml.len());
        }
        for error in [
            parse_uploads(xml).err(),
            parse_initiate(xml).err(),
            parse_complete(xml).err(),
            parse_copy(xml).err(),
            parse_delete(xml).err(),
            parse_session(xml).err(),
        ] {
            assert!(error.is_none_or(|error| !error.to_string().is_empty()));
        }
        if let Some(error) = parse_error(xml) {
            assert!(!error.code.is_empty());
        }
    }

    #[test]
    fn every_document_cut_anywhere_is_survived() {
        for document in DOCUMENTS {
            for end in 0..document.len() {
                parse_all(&document[..end]);
                parse_all(&document[end..]);
            }
        }
    }

    #[test]
    fn spoilt_documents_are_survived() {
        const SPLINTERS: [&[u8]; 20] = [
            b"<",
            b">",
            b"&",
            b";",
            b"/",
            b"\"",
            b"'",
            b"<![CDATA[",
            b"]]>",
            b"<!--",
            b"-->",
            b"<?",
            b"?>",
            b"&#x",
            b"%",
            b"%C3",
            b"\xff",
            b"\0",
            b"</Key>",
            b"<a:b c='",
        ];
        let mut random = Random::new(1);
        for _ in 0..30_000 {
            let mut document = DOCUMENTS[random.below(DOCUMENTS.len())].to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(document.len() + 1);
                let end = (at + random.below(12)).min(document.len());
                match random.below(3) {
                    0 => drop(document.splice(at..end, SPLINTERS[random.below(SPLINTERS.len())].iter().copied())),
                    1 => drop(document.splice(at..at, SPLINTERS[random.below(SPLINTERS.len())].iter().copied())),
                    _ => {
                        let copy = document[at..end].to_vec();
                        let to = random.below(document.len() + 1);
                        drop(document.splice(to..to, copy));
                    }
                }
            }
            parse_all(&document);
        }
    }

    #[test]
    fn noise_is_survived() {
        const ALPHABET: &[u8] = b"<>&;/!?-[]'\"=:abKey #x0%+\n\xc3\xa9\xff";
        let mut random = Random::new(2);
        for _ in 0..30_000 {
            let noise: Vec<u8> = (0..random.below(60)).map(|_| ALPHABET[random.below(ALPHABET.len())]).collect();
            parse_all(&noise);
            parse_all(&[b"<ListBucketResult><Contents>", noise.as_slice()].concat());
        }
    }
}
