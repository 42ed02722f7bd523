//! Numbers as text, without the machinery of `format!`: listings write thousands of them a page.

/// Appends a number in decimal.
pub fn push_number(out: &mut Vec<u8>, number: u64) {
    push_padded(out, number, 1);
}

/// Appends a number in decimal with zeros in front, at least `width` digits.
pub fn push_padded(out: &mut Vec<u8>, mut number: u64, width: usize) {
    const MOST: usize = 20;
    let mut digits = [b'0'; MOST];
    let mut at = MOST;
    while number > 0 {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend((MOST..width).map(|_| b'0'));
    out.extend_from_slice(&digits[at.min(MOST - width.min(MOST))..]);
}

/// Appends the lowest `digits` (at most 16) of a number in hexadecimal.
pub fn push_hex(out: &mut Vec<u8>, number: u64, digits: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    for (place, byte) in text[..digits].iter_mut().rev().enumerate() {
        *byte = HEX[(number >> (4 * place) & 15) as usize];
    }
    out.extend_from_slice(&text[..digits]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_format() {
        for number in [0, 7, 10, 999, 123_456_789, u64::MAX] {
            for width in [1, 3, 8, 20, 25] {
                let mut out = Vec::new();
                push_padded(&mut out, number, width);
                assert_eq!(out, format!("{number:0width$}").into_bytes());
            }
            let mut out = Vec::new();
            push_hex(&mut out, number, 16);
            push_hex(&mut out, number, 4);
            assert_eq!(out, format!("{number:016x}{:04x}", number & 0xffff).into_bytes());
        }
    }
}
