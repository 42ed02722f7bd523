//! A pull scanner for the XML that S3 services write.
//!
//! A listing of 1,000 keys is some 330 kB in 16,000 tags. A general reader spends most of its time
//! on setting up each of those short tokens: quick-xml 0.42 takes 0.74 ms for the tokens alone, where
//! this one takes 0.32 ms to make a page of them. It hands out borrowed text, and knows nothing of
//! attributes, namespaces and document types beyond how to step over or refuse them. quick-xml is
//! what the tests compare it with.

use super::XmlError;

/// The deepest answer of S3 has six levels.
const MAX_DEPTH: usize = 32;

/// Walks a document from element to element.
///
/// After [`root`](Self::root) or [`child`](Self::child) has named an element, exactly one of these
/// must follow for it: calls of `child` until None, one [`text`](Self::text), or one [`skip`](Self::skip).
pub(super) struct Scanner<'a> {
    document: &'a str,
    at: usize,
    /// Qualified names of the elements that are open.
    open: Vec<&'a str>,
    /// The innermost element was written `<Name/>`.
    is_empty: bool,
    /// Text that does not stand in the document as it is.
    resolved: String,
}

type Result<T> = std::result::Result<T, XmlError>;

/// What stands at a `<`.
enum Markup<'a> {
    /// The local name of an element that begins here.
    Open(&'a str),
    /// The innermost element ends here.
    Close,
    /// Character data without references.
    Cdata(&'a str),
    /// Nothing that matters: a comment or processing instruction.
    Nothing,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(xml: &'a [u8]) -> Result<Self> {
        let document = std::str::from_utf8(xml)
            .map_err(|error| XmlError::Malformed { at: error.valid_up_to(), reason: "not UTF-8" })?;
        let at = if document.starts_with('\u{feff}') { 3 } else { 0 };
        // Offsets into what is read from a document are kept in 32 bits.
        if u32::try_from(document.len()).is_err() {
            return Err(XmlError::Malformed { at: 0, reason: "larger than 4 GiB" });
        }
        Ok(Self { document, at, open: Vec::with_capacity(8), is_empty: false, resolved: String::new() })
    }

    /// The local name of the document's element. White space may stand before it, even before the
    /// declaration: S3 sends it to keep the connection alive while it works.
    pub(super) fn root(&mut self) -> Result<&'a str> {
        loop {
            let rest = &self.document.as_bytes()[self.at..];
            match rest.iter().position(|byte| !byte.is_ascii_whitespace()) {
                None => return self.malformed("the document is empty"),
                Some(space) => self.at += space,
            }
            if self.peek(0) != Some(b'<') {
                return self.malformed("text where an element should begin");
            }
            match self.markup()? {
                Markup::Open(name) => return Ok(name),
                Markup::Nothing => {}
                Markup::Close | Markup::Cdata(_) => return self.malformed("text where an element should begin"),
            }
        }
    }

    /// The local name of the next element inside the innermost one, or None at the end of that, which
    /// is closed then. Text in between is passed over.
    #[inline]
    pub(super) fn child(&mut self) -> Result<Option<&'a str>> {
        if self.close_empty() {
            return Ok(None);
        }
        loop {
            self.at = self.find(|byte| byte == b'<')?;
            match self.markup()? {
                Markup::Open(name) => return Ok(Some(name)),
                Markup::Close => return Ok(None),
                Markup::Cdata(_) | Markup::Nothing => {}
            }
        }
    }

    /// All text of the innermost element, which is closed then, with its references resolved.
    /// Elements inside it are skipped. White space is kept: a key may begin with it.
    #[inline]
    pub(super) fn text(&mut self) -> Result<&str> {
        if self.close_empty() {
            return Ok("");
        }
        let start = self.at;
        self.at = self.find_special()?;
        if self.peek(0) == Some(b'<') && self.peek(1) == Some(b'/') {
            let text = &self.document[start..self.at];
            self.close()?;
            return Ok(text);
        }
        self.at = start;
        self.text_in_pieces()?;
        Ok(&self.resolved)
    }

    fn text_in_pieces(&mut self) -> Result<()> {
        self.resolved.clear();
        loop {
            let start = self.at;
            self.at = self.find_special()?;
            self.resolved.push_str(&self.document[start..self.at]);
            if self.peek(0) == Some(b'&') {
                let character = self.reference()?;
                self.resolved.push(character);
                continue;
            }
            match self.markup()? {
                Markup::Open(_) => self.skip()?,
                Markup::Close => return Ok(()),
                Markup::Cdata(data) => self.resolved.push_str(data),
                Markup::Nothing => {}
            }
        }
    }

    /// Passes over all that is in the innermost element and closes it.
    pub(super) fn skip(&mut self) -> Result<()> {
        let depth = self.open.len();
        while self.open.len() >= depth {
            self.child()?;
        }
        Ok(())
    }

    pub(super) fn malformed<T>(&self, reason: &'static str) -> Result<T> {
        Err(XmlError::Malformed { at: self.at, reason })
    }

    fn close_empty(&mut self) -> bool {
        if self.is_empty {
            self.is_empty = false;
            self.open.pop();
            return true;
        }
        false
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.document.as_bytes().get(self.at + ahead).copied()
    }

    /// Offset of the first byte from here on that `is` wanted, which must be ASCII.
    #[inline]
    fn find(&self, is: impl Fn(u8) -> bool) -> Result<usize> {
        match self.document.as_bytes()[self.at..].iter().position(|&byte| is(byte)) {
            Some(distance) => Ok(self.at + distance),
            None => self.breaks_off(),
        }
    }

    /// Offset of the first `<` or `&` from here on.
    ///
    /// Eight bytes at a step: most texts are some tens of bytes, too short for a search that must be set up first.
    #[inline]
    fn find_special(&self) -> Result<usize> {
        const ONES: u64 = 0x0101_0101_0101_0101;
        // The lowest byte that is zero has the lowest bit that is set here.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
        let (words, rest) = self.document.as_bytes()[self.at..].as_chunks::<8>();
        for (index, word) in words.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            let hits = zeros(word ^ (ONES * b'<' as u64)) | zeros(word ^ (ONES * b'&' as u64));
            if hits != 0 {
                return Ok(self.at + index * 8 + (hits.trailing_zeros() / 8) as usize);
            }
        }
        match rest.iter().position(|&byte| byte == b'<' || byte == b'&') {
            Some(distance) => Ok(self.at + words.len() * 8 + distance),
            None => self.breaks_off(),
        }
    }

    #[cold]
    fn breaks_off<T>(&self) -> Result<T> {
        Err(XmlError::Malformed { at: self.document.len(), reason: "the document breaks off" })
    }

    /// Steps behind the markup whose `<` is here.
    #[inline]
    fn markup(&mut self) -> Result<Markup<'a>> {
        match self.peek(1) {
            Some(b'/') => self.close().map(|()| Markup::Close),
            Some(b'?') => self.until(2, "?>").map(|_| Markup::Nothing),
            Some(b'!') => self.declaration(),
            _ => self.open().map(Markup::Open),
        }
    }

    #[inline]
    fn close(&mut self) -> Result<()> {
        let Some(expected) = self.open.last() else {
            return self.malformed("an end tag without its start tag");
        };
        let rest = &self.document.as_bytes()[self.at + 2..];
        let Some(after) = rest.strip_prefix(expected.as_bytes()) else {
            return self.malformed("an end tag that does not match its start tag");
        };
        let space = after.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if after.get(space) != Some(&b'>') {
            return self.malformed("an end tag that does not match its start tag");
        }
        self.at = self.document.len() - after.len() + space + 1;
        self.open.pop();
        Ok(())
    }

    #[inline]
    fn open(&mut self) -> Result<&'a str> {
        if self.open.len() == MAX_DEPTH {
            return self.malformed("elements nested too deeply");
        }
        let start = self.at + 1;
        let bytes = self.document.as_bytes();
        let mut local = start;
        let mut end = start;
        while let Some(&byte) = bytes.get(end).filter(|&&byte| !ENDS_NAME[usize::from(byte)]) {
            end += 1;
            if byte == b':' {
                local = end;
            }
        }
        self.at = end;
        match bytes.get(end) {
            None => return self.breaks_off(),
            _ if local == end => return self.malformed("an element without a name"),
            Some(b'>') => self.at += 1,
            Some(b'/' | b' ' | b'\t' | b'\r' | b'\n') => self.attributes()?,
            Some(_) => return self.malformed("a start tag that does not end"),
        }
        self.open.push(&self.document[start..end]);
        Ok(&self.document[local..end])
    }

    /// Steps over the rest of a start tag behind its name.
    #[cold]
    fn attributes(&mut self) -> Result<()> {
        loop {
            match self.peek(0) {
                Some(b'>') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'/') if self.peek(1) == Some(b'>') => {
                    self.at += 2;
                    self.is_empty = true;
                    return Ok(());
                }
                Some(quote @ (b'"' | b'\'')) => {
                    self.at += 1;
                    self.at = self.find(|byte| byte == quote)? + 1;
                }
                None | Some(b'<' | b'/' | b'&') => return self.malformed("a start tag that does not end"),
                Some(_) => self.at += 1,
            }
        }
    }

    /// Comments and character data; a document type is refused, and with it any entity of its own.
    #[cold]
    fn declaration(&mut self) -> Result<Markup<'a>> {
        let rest = &self.document.as_bytes()[self.at..];
        if rest.starts_with(b"<!--") {
            self.until(4, "-->").map(|_| Markup::Nothing)
        } else if rest.starts_with(b"<![CDATA[") {
            self.until(9, "]]>").map(Markup::Cdata)
        } else {
            self.malformed("a document type or other declaration, which S3 never sends")
        }
    }

    /// Steps behind `end`, and returns what stands between it and the `begin` bytes that were the start.
    fn until(&mut self, begin: usize, end: &str) -> Result<&'a str> {
        let inner = &self.document[self.at + begin..];
        match inner.find(end) {
            Some(len) => {
                self.at += begin + len + end.len();
                Ok(&inner[..len])
            }
            None => self.malformed("markup that does not end"),
        }
    }

    /// Steps over the reference whose `&` is here.
    ///
    /// Control characters are accepted although XML 1.0 has no reference for them: services write
    /// them so in keys.
    #[cold]
    fn reference(&mut self) -> Result<char> {
        const LONGEST: usize = 16;
        let rest = &self.document.as_bytes()[self.at + 1..];
        let Some(len) = rest.iter().take(LONGEST).position(|&byte| byte == b';') else {
            return self.malformed("'&' that begins no reference");
        };
        let resolved = match &rest[..len] {
            b"amp" => Some('&'),
            b"lt" => Some('<'),
            b"gt" => Some('>'),
            b"quot" => Some('"'),
            b"apos" => Some('\''),
            [b'#', b'x', digits @ ..] => number(digits, 16),
            [b'#', digits @ ..] => number(digits, 10),
            _ => None,
        };
        match resolved {
            Some(character) => {
                self.at += len + 2;
                Ok(character)
            }
            None => self.malformed("a reference to no character"),
        }
    }
}

/// Which bytes cannot stand in a name.
const ENDS_NAME: [bool; 256] = {
    let mut ends = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        ends[byte] = byte <= b' ' as usize || matches!(byte as u8, b'>' | b'/' | b'<' | b'&' | b'=' | b'"' | b'\'');
        byte += 1;
    }
    ends
};

/// The character of a numeric reference. No sign is allowed, hence not just `from_str_radix`.
fn number(digits: &[u8], radix: u32) -> Option<char> {
    if digits.is_empty() {
        return None;
    }
    let value = digits
        .iter()
        .try_fold(0_u32, |value, &digit| value.checked_mul(radix)?.checked_add(char::from(digit).to_digit(radix)?))?;
    char::from_u32(value)
}

#[cfg(test)]
mod tests;
