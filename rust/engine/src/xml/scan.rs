//! A pull scanner for the XML that S3 services write.
//!
//! A listing of 1,000 keys is some 330 kB in 16,000 tags. A general reader spends most of its time
//! on setting up each of those short tokens (quick-xml 0.42: 0.74 ms a page); this one takes a
//! quarter of that, because it hands out borrowed text and knows nothing of attributes,
//! namespaces and document types beyond how to step over or refuse them. quick-xml is what
//! the tests compare it with.

use std::borrow::Cow;

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
        Ok(Self { document, at, open: Vec::with_capacity(8), is_empty: false })
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
    pub(super) fn text(&mut self) -> Result<Cow<'a, str>> {
        if self.close_empty() {
            return Ok(Cow::Borrowed(""));
        }
        let start = self.at;
        let end = self.find(|byte| byte == b'<' || byte == b'&')?;
        if self.document.as_bytes()[end..].starts_with(b"</") {
            self.at = end;
            self.markup()?;
            return Ok(Cow::Borrowed(&self.document[start..end]));
        }
        self.text_in_pieces().map(Cow::Owned)
    }

    fn text_in_pieces(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            let end = self.find(|byte| byte == b'<' || byte == b'&')?;
            text.push_str(&self.document[self.at..end]);
            self.at = end;
            if self.peek(0) == Some(b'&') {
                text.push(self.reference()?);
                continue;
            }
            match self.markup()? {
                Markup::Open(_) => self.skip()?,
                Markup::Close => return Ok(text),
                Markup::Cdata(data) => text.push_str(data),
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
            None => Err(XmlError::Malformed { at: self.document.len(), reason: "the document breaks off" }),
        }
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
        self.at += 1;
        let end = self.find(|byte| byte <= b' ' || matches!(byte, b'>' | b'/' | b'<' | b'&' | b'=' | b'"' | b'\''))?;
        let name = &self.document[self.at..end];
        self.at = end;
        match self.peek(0) {
            _ if name.is_empty() => return self.malformed("an element without a name"),
            Some(b'>') => self.at += 1,
            Some(b'<' | b'&' | b'=' | b'"' | b'\'') => return self.malformed("a start tag that does not end"),
            _ => self.attributes()?,
        }
        self.open.push(name);
        Ok(name.rsplit_once(':').map_or(name, |(_, local)| local))
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
mod tests {
    use quick_xml::events::Event;

    use super::*;

    /// A document as a flat text: names of elements, and the text directly inside each.
    fn outline(scanner: &mut Scanner<'_>, name: &str, out: &mut String) -> Result<()> {
        out.push_str(&format!("<{name}"));
        while let Some(child) = scanner.child()? {
            outline(scanner, child, out)?;
        }
        out.push('>');
        Ok(())
    }

    fn ours(xml: &str) -> Result<String> {
        let mut scanner = Scanner::new(xml.as_bytes())?;
        let mut out = String::new();
        let name = scanner.root()?;
        outline(&mut scanner, name, &mut out)?;
        Ok(out)
    }

    fn our_text(xml: &str) -> Result<String> {
        let mut scanner = Scanner::new(xml.as_bytes())?;
        scanner.root()?;
        Ok(scanner.text()?.into_owned())
    }

    /// The outline, and the text that stands directly in the root, as quick-xml reads them.
    fn theirs(xml: &str) -> Option<(String, String)> {
        let mut reader = quick_xml::Reader::from_str(xml);
        let (mut out, mut text, mut depth) = (String::new(), String::new(), 0);
        loop {
            match reader.read_event().ok()? {
                Event::Start(tag) => {
                    out.push_str(&format!("<{}", tag.local_name().into_inner()));
                    depth += 1;
                }
                Event::Empty(tag) => {
                    out.push_str(&format!("<{}>", tag.local_name().into_inner()));
                    if depth == 0 {
                        return Some((out, text));
                    }
                }
                Event::End(_) => {
                    out.push('>');
                    depth -= 1;
                    if depth == 0 {
                        return Some((out, text));
                    }
                }
                Event::Text(piece) if depth == 1 => text.push_str(&piece),
                Event::CData(piece) if depth == 1 => text.push_str(&piece),
                Event::GeneralRef(reference) if depth == 1 => {
                    text.push_str(&quick_xml::escape::unescape(&format!("&{};", &*reference)).ok()?);
                }
                Event::DocType(_) | Event::Eof => return None,
                _ => {}
            }
        }
    }

    #[test]
    fn text_is_taken_as_it_is() {
        for (xml, expected) in [
            ("<a>x</a>", "x"),
            ("<a/>", ""),
            ("<a></a>", ""),
            ("<a> x y </a>", " x y "),
            ("<a b='>' c=\"/>\" >x</a >", "x"),
            ("<a>&lt;&gt;&amp;&quot;&apos;&#65;&#x1F600;&#x1;&#13;</a>", "<>&\"'A\u{1f600}\u{1}\r"),
            ("<a>x<!-- & > --><![CDATA[<&amp;]]><b>no</b><?pi >?>y</a>", "x<&amp;y"),
            ("<?xml version=\"1.0\"?>\n\n  <!-- c -->\n<a>x</a>", "x"),
            (" \r\n\t<?xml version=\"1.0\"?><a>x</a>", "x"),
            ("\u{feff}<a>x</a>", "x"),
            ("<s3:a xmlns:s3='u'>é</s3:a>", "é"),
        ] {
            assert_eq!(our_text(xml).as_deref(), Ok(expected), "{xml}");
        }
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for xml in [
            "",
            "  ",
            "x",
            "<a>",
            "<a",
            "<a b='",
            "<a>x</b>",
            "<a>x</ab>",
            "<ab>x</a>",
            "<a>x</a",
            "</a>",
            "<>x</>",
            "<a>&nope;</a>",
            "<a>&</a>",
            "<a>&#xD800;</a>",
            "<a>&#x110000;</a>",
            "<a>&#99999999999;</a>",
            "<a>&#+5;</a>",
            "<a>&#;</a>",
            "<a>&#x;</a>",
            "<a><!-- </a>",
            "<a><![CDATA[ </a>",
            "<a><? </a>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
            "<!DOCTYPE html><html></html>",
            "<a><!ENTITY x 'y'></a>",
            "<a <b></b>",
        ] {
            assert!(our_text(xml).is_err(), "{xml}");
        }
        assert!(matches!(Scanner::new(b"<a>\xff</a>"), Err(XmlError::Malformed { at: 3, .. })));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| "<a>".repeat(depth) + &"</a>".repeat(depth);
        assert!(ours(&nested(MAX_DEPTH)).is_ok());
        assert!(ours(&nested(MAX_DEPTH + 1)).is_err());
        assert!(ours(&nested(1_000_000)).is_err());
    }

    #[test]
    fn skipping_leaves_the_parent_open() {
        let mut scanner = Scanner::new(b"<r><a><b>1</b><c/></a><d/><e>2</e></r>").unwrap();
        assert_eq!(scanner.root(), Ok("r"));
        for name in ["a", "d"] {
            assert_eq!(scanner.child(), Ok(Some(name)));
            scanner.skip().unwrap();
        }
        assert_eq!(scanner.child(), Ok(Some("e")));
        assert_eq!(scanner.text().as_deref(), Ok("2"));
        assert_eq!(scanner.child(), Ok(None));
    }

    /// Random documents of well-formed pieces, some spoilt: where both readers accept, they must agree,
    /// and what was not spoilt both must accept.
    #[test]
    fn agrees_with_quick_xml() {
        const PIECES: [&str; 14] = [
            "text",
            " ",
            "\n",
            "é",
            "&amp;",
            "&#x41;",
            "<!-- c -->",
            "<![CDATA[<x>&]]>",
            "<e/>",
            "<p:e a='1' b=\"<>\"/>",
            "<?pi x?>",
            "<n>",
            "<m xmlns=\"u\">",
            "&quot;",
        ];
        let mut random = crate::xml::tests::Random::new(7);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let mut xml = "<root>".to_owned();
            let mut open = vec!["root"];
            for _ in 0..random.below(12) {
                let piece = PIECES[random.below(PIECES.len())];
                xml.push_str(piece);
                if piece == "<n>" || piece.starts_with("<m") {
                    open.push(&piece[1..2]);
                } else if open.len() > 1 && random.below(3) == 0 {
                    xml.push_str(&format!("</{}>", open.pop().unwrap()));
                }
            }
            while let Some(name) = open.pop() {
                xml.push_str(&format!("</{name}>"));
            }
            let spoilt = random.below(3) == 0;
            if spoilt {
                let at = random.below(xml.len());
                if xml.is_char_boundary(at) && xml.is_char_boundary(at + 1) {
                    xml.replace_range(at..=at, ["<", ">", "&", "/", "", "x", ";", "\""][random.below(8)]);
                }
            }
            let (ours, our_text, theirs) = (ours(&xml), our_text(&xml), theirs(&xml));
            match theirs {
                Some((outline, text)) if ours.is_ok() && our_text.is_ok() => {
                    accepted += 1;
                    assert_eq!(ours.unwrap(), outline, "{xml}");
                    assert_eq!(our_text.unwrap(), text, "{xml}");
                }
                _ => assert!(spoilt, "{xml}: {ours:?} {our_text:?} {theirs:?}"),
            }
        }
        assert!(accepted > 13_000, "{accepted}");
    }
}
