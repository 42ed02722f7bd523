//! The three date formats of S3: HTTP's, ISO 8601's and SigV4's.
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970 and the milliseconds of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    pub seconds: i64,
    pub millis: u16,
}

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment in the proleptic Gregorian calendar, UTC.
pub struct Civil {
    pub year: i64,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
}

impl Civil {
    pub fn of(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let rest = seconds.rem_euclid(86_400) as u32;
        // Years are counted from March, so that the leap day ends one; 400 years have 146,097 days.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 } as u32;
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: (day_of_year - (153 * march_month + 2) / 5 + 1) as u32,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    pub fn seconds(&self) -> i64 {
        let year = if self.month <= 2 { self.year - 1 } else { self.year };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let march_month = i64::from((self.month + 9) % 12);
        let day_of_year = (153 * march_month + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        days * 86_400 + i64::from(self.hour * 3_600 + self.minute * 60 + self.second)
    }
}

impl Timestamp {
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs() as i64, millis: since.subsec_millis() as u16 }
    }

    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs() as i64, millis: since.subsec_millis() as u16 }
    }

    pub fn shifted(self, seconds: i64) -> Self {
        Self { seconds: self.seconds + seconds, ..self }
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT`
    pub fn http(self) -> String {
        let c = Civil::of(self.seconds);
        let weekday = DAYS[self.seconds.div_euclid(86_400).rem_euclid(7) as usize];
        let month = MONTHS[c.month as usize - 1];
        format!("{weekday}, {:02} {month} {:04} {:02}:{:02}:{:02} GMT", c.day, c.year, c.hour, c.minute, c.second)
    }

    /// `1994-11-06T08:49:37.000Z`
    pub fn iso(self) -> String {
        let c = Civil::of(self.seconds);
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            c.year, c.month, c.day, c.hour, c.minute, c.second, self.millis
        )
    }

    /// Reads `19941106T084937Z`, the form of `x-amz-date`.
    pub fn parse_basic(text: &str) -> Option<Self> {
        let b = text.as_bytes();
        if b.len() != 16 || b[8] != b'T' || b[15] != b'Z' {
            return None;
        }
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
        let civil = Civil {
            year: i64::from(number(0, 4)?),
            month: number(4, 6)?,
            day: number(6, 8)?,
            hour: number(9, 11)?,
            minute: number(11, 13)?,
            second: number(13, 15)?,
        };
        (1..=12).contains(&civil.month).then(|| Self { seconds: civil.seconds(), millis: 0 })
    }

    /// Reads HTTP's preferred date format; the two obsolete ones are not in use by S3 clients.
    pub fn parse_http(text: &str) -> Option<Self> {
        let mut words = text.split_once(", ")?.1.split(' ');
        let day = words.next()?.parse().ok()?;
        let name = words.next()?;
        let month = MONTHS.iter().position(|m| *m == name)? as u32 + 1;
        let year = words.next()?.parse().ok()?;
        let mut clock = words.next()?.split(':').map(|part| part.parse::<u32>().ok());
        let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
        Some(Self { seconds: Civil { year, month, day, hour, minute, second }.seconds(), millis: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_known_moments() {
        let moment = Timestamp { seconds: 784_111_777, millis: 5 };
        assert_eq!(moment.http(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(moment.iso(), "1994-11-06T08:49:37.005Z");
        assert_eq!(Timestamp { seconds: 1_709_164_800, millis: 0 }.iso(), "2024-02-29T00:00:00.000Z");
    }

    #[test]
    fn parses_what_it_formats() {
        for seconds in [0, 951_782_400, 1_709_164_799, 1_735_689_599, 4_102_444_800] {
            let moment = Timestamp { seconds, millis: 0 };
            assert_eq!(Timestamp::parse_http(&moment.http()), Some(moment));
            let basic: String = moment.iso().chars().filter(|c| !"-:".contains(*c)).collect();
            assert_eq!(Timestamp::parse_basic(&basic.replace(".000", "")), Some(moment));
        }
        assert_eq!(Timestamp::parse_basic("20241306T000000Z"), None);
        assert_eq!(Timestamp::parse_http("yesterday"), None);
    }
}
