//! The three date formats of S3, without a calendar library: HTTP's, ISO 8601's and SigV4's.
//!
//! All times are UTC; epoch seconds count from 1970-01-01T00:00:00Z without leap seconds.

const MONTHS: [&[u8; 3]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];

const DAY_S: i64 = 86_400;

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
///
/// The year is taken to begin in March, so that the leap day is its last one and a month's
/// offset is linear: (153 m + 2) / 5 (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`]: (year, month, day).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Epoch seconds of checked fields; a leap second (60) counts as the second before it.
fn epoch_s(year: i64, month: i64, day: i64, hour: i64, minute: i64, second: i64) -> Option<i64> {
    let in_range = (1..=12).contains(&month)
        && (1..=month_days(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 60;
    in_range.then(|| days_from_civil(year, month, day) * DAY_S + hour * 3_600 + minute * 60 + second.min(59))
}

/// Takes exactly `count` decimal digits off the front.
fn digits(input: &mut &[u8], count: usize) -> Option<i64> {
    let (head, rest) = input.split_at_checked(count)?;
    let mut value = 0;
    for byte in head {
        value = value * 10 + i64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
    }
    *input = rest;
    Some(value)
}

/// Takes one of `accepted` off the front.
fn one_of(input: &mut &[u8], accepted: &[u8]) -> Option<u8> {
    let (&first, rest) = input.split_first()?;
    accepted.contains(&first).then_some(())?;
    *input = rest;
    Some(first)
}

fn clock(input: &mut &[u8]) -> Option<(i64, i64, i64)> {
    let hour = digits(input, 2)?;
    one_of(input, b":")?;
    let minute = digits(input, 2)?;
    one_of(input, b":")?;
    Some((hour, minute, digits(input, 2)?))
}

fn month_name(input: &mut &[u8]) -> Option<i64> {
    let (name, rest) = input.split_at_checked(3)?;
    let index = MONTHS.iter().position(|month| name.eq_ignore_ascii_case(*month))?;
    *input = rest;
    Some(index as i64 + 1)
}

/// Epoch seconds of an HTTP date, in any of the three forms that RFC 9110 obliges a recipient to
/// accept: `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT` and
/// `Sun Nov  6 08:49:37 1994`. None for anything else; the name of the weekday is not checked.
pub fn parse_http_date(text: &str) -> Option<i64> {
    let text = text.trim_ascii().as_bytes();
    let Some(comma) = text.iter().take(10).position(|&byte| byte == b',') else {
        return parse_asctime(text);
    };
    let mut rest = text[comma + 1..].trim_ascii_start();
    let day = digits(&mut rest, 2)?;
    let separator = one_of(&mut rest, b" -")?;
    let month = month_name(&mut rest)?;
    one_of(&mut rest, &[separator])?;
    let year = if separator == b' ' {
        digits(&mut rest, 4)?
    } else {
        // RFC 850 has two digits. No store answers with dates before 1970.
        let short = digits(&mut rest, 2)?;
        if short < 70 { 2_000 + short } else { 1_900 + short }
    };
    one_of(&mut rest, b" ")?;
    let (hour, minute, second) = clock(&mut rest)?;
    matches!(rest, b" GMT" | b" UTC" | b" +0000").then_some(())?;
    epoch_s(year, month, day, hour, minute, second)
}

fn parse_asctime(text: &[u8]) -> Option<i64> {
    let mut rest = text.get(3..)?;
    one_of(&mut rest, b" ")?;
    let month = month_name(&mut rest)?;
    one_of(&mut rest, b" ")?;
    let day = if rest.first() == Some(&b' ') {
        rest = &rest[1..];
        digits(&mut rest, 1)?
    } else {
        digits(&mut rest, 2)?
    };
    one_of(&mut rest, b" ")?;
    let (hour, minute, second) = clock(&mut rest)?;
    one_of(&mut rest, b" ")?;
    let year = digits(&mut rest, 4)?;
    rest.is_empty().then_some(())?;
    epoch_s(year, month, day, hour, minute, second)
}

/// Epoch seconds of an ISO 8601 time such as `2009-10-12T17:50:30.000Z`, rounded down.
///
/// Any number of digits may follow the point; the zone is `Z`, `+hh:mm` or `-hh:mm`, and a time
/// without one is UTC, as S3-compatible stores mean it. None for anything else.
pub fn parse_iso8601(text: &str) -> Option<i64> {
    let mut rest = text.trim_ascii().as_bytes();
    let year = digits(&mut rest, 4)?;
    one_of(&mut rest, b"-")?;
    let month = digits(&mut rest, 2)?;
    one_of(&mut rest, b"-")?;
    let day = digits(&mut rest, 2)?;
    one_of(&mut rest, b"Tt ")?;
    let (hour, minute, second) = clock(&mut rest)?;
    let time = epoch_s(year, month, day, hour, minute, second)?;
    if one_of(&mut rest, b".,").is_some() {
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then_some(())?;
        rest = &rest[count..];
    }
    if rest.is_empty() || matches!(rest, b"Z" | b"z") {
        return Some(time);
    }
    let sign = if one_of(&mut rest, b"+-")? == b'+' { 1 } else { -1 };
    let hours = digits(&mut rest, 2)?;
    one_of(&mut rest, b":");
    let minutes = digits(&mut rest, 2)?;
    (rest.is_empty() && hours <= 23 && minutes <= 59).then(|| time - sign * (hours * 3_600 + minutes * 60))
}

/// Writes SigV4's `YYYYMMDDTHHMMSSZ`. Years after 9999 come out as 9999: the format has no more digits.
pub fn amz_date(epoch_s: u64, out: &mut [u8; 16]) {
    const LAST_S: u64 = 253_402_300_799; // 9999-12-31T23:59:59Z
    let epoch_s = epoch_s.min(LAST_S);
    let (year, month, day) = civil_from_days(epoch_s / DAY_S as u64);
    let second_of_day = epoch_s % DAY_S as u64;
    let mut put = |at: usize, value: u64| {
        out[at] = b'0' + (value / 10) as u8;
        out[at + 1] = b'0' + (value % 10) as u8;
    };
    put(0, year / 100);
    put(2, year % 100);
    put(4, month);
    put(6, day);
    put(9, second_of_day / 3_600);
    put(11, second_of_day / 60 % 60);
    put(13, second_of_day % 60);
    out[8] = b'T';
    out[15] = b'Z';
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amz(epoch_s: u64) -> String {
        let mut out = [0; 16];
        amz_date(epoch_s, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn http_dates_of_all_three_forms_are_the_same_second() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse_http_date(text), Some(784_111_777), "{text}");
        }
        assert_eq!(parse_http_date("Thu, 29 Feb 2024 23:59:60 GMT"), Some(1_709_251_199));
        assert_eq!(parse_http_date("Wed Feb 29 00:00:00 2012"), Some(1_330_473_600));
    }

    #[test]
    fn what_is_no_http_date_is_none() {
        for text in [
            "",
            ",",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 PST",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06-Nov 1994 08:49:37 GMT",
            "Sun, 06 Xxx 1994 08:49:37 GMT",
            "Sun Nov  6 08:49:37 19945",
            "été, 06 Nov 1994 08:49:37 GMT!",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn iso_times_take_fractions_and_offsets() {
        assert_eq!(parse_iso8601("2009-10-12T17:50:30.000Z"), Some(1_255_369_830));
        assert_eq!(parse_iso8601("2009-10-12T17:50:30.999999999Z"), Some(1_255_369_830));
        assert_eq!(parse_iso8601("2009-10-12T17:50:30Z"), Some(1_255_369_830));
        assert_eq!(parse_iso8601("2009-10-12T17:50:30"), Some(1_255_369_830));
        assert_eq!(parse_iso8601(" 2009-10-12T19:50:30.5+02:00\n"), Some(1_255_369_830));
        assert_eq!(parse_iso8601("2009-10-12T10:20:30-0730"), Some(1_255_369_830));
        assert_eq!(parse_iso8601("1969-12-31T23:59:59.9Z"), Some(-1));
        assert_eq!(parse_iso8601("0001-01-01T00:00:00Z"), Some(-62_135_596_800));
    }

    #[test]
    fn what_is_no_iso_time_is_none() {
        for text in [
            "",
            "2009",
            "2009-10-12",
            "2009-13-12T17:50:30Z",
            "2009-02-29T17:50:30Z",
            "2009-10-12T17:50:30.Z",
            "2009-10-12T17:50:30ZZ",
            "2009-10-12T17:50:30+2",
            "2009-10-12T17:50:30+24:00",
            "-009-10-12T17:50:30Z",
            "２009-10-12T17:50:30Z",
        ] {
            assert_eq!(parse_iso8601(text), None, "{text}");
        }
    }

    #[test]
    fn amz_dates() {
        assert_eq!(amz(0), "19700101T000000Z");
        assert_eq!(amz(1_369_353_600), "20130524T000000Z");
        assert_eq!(amz(951_782_399), "20000228T235959Z");
        assert_eq!(amz(951_782_400), "20000229T000000Z");
        assert_eq!(amz(u64::MAX), "99991231T235959Z");
    }

    #[test]
    fn every_day_of_four_centuries_survives_the_round_trip() {
        for day in 0..150_000_u64 {
            let (year, month, date) = civil_from_days(day);
            assert_eq!(days_from_civil(year as i64, month as i64, date as i64), day as i64);
            assert!(date as i64 <= month_days(year as i64, month as i64));
        }
    }
}
