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
    use crate::spoilt::Random;
    use crate::trials::{XML, xml};

    #[test]
    fn every_document_cut_anywhere_is_survived() {
        for document in XML.begin {
            for end in 0..document.len() {
                xml(&document[..end]);
                xml(&document[end..]);
            }
        }
    }

    #[test]
    fn noise_is_survived() {
        const ALPHABET: &[u8] = b"<>&;/!?-[]'\"=:abKey #x0%+\n\xc3\xa9\xff";
        let mut random = Random::new(2);
        for _ in 0..30_000 {
            let noise: Vec<u8> = (0..random.below(60)).map(|_| ALPHABET[random.below(ALPHABET.len())]).collect();
            xml(&noise);
            xml(&[b"<ListBucketResult><Contents>", noise.as_slice()].concat());
        }
    }
}
