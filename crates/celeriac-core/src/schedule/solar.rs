//! Events of the sun, as Celery's `solar` has them.
//!
//! Where the sun stands is computed as in Meeus, *Astronomical Algorithms*, 2nd edition, chapters 12, 13
//! and 25 (the lower accuracy: 0.01 degrees). When it stands at a height is found by halving the time
//! between its lowest and its highest point of one day. Compared with ephem, which Celery uses, in
//! `tests/celery.rs`.

use super::{ScheduleError, second_of};
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;

/// How many days ahead and back an event is looked for, as Celery's `max_search_days`: near a pole some
/// happen in a part of the year only.
pub const SEARCH_DAYS_MAX: i64 = 366;

const DAY: f64 = 86_400.0;
/// 2000-01-01 12:00 UTC in seconds since the epoch.
const J2000: f64 = 946_728_000.0;
/// How far the earth turns against the sun in a day, in degrees.
const DEGREES_A_DAY: f64 = 360.0;
/// How often the time between two points is halved: 12 hours become 0.04 seconds.
const HALVINGS: u32 = 20;
/// Half of the sun's disc as seen from its mean distance, in degrees.
const HALF_DISC: f64 = 0.266_56;
/// How much lower the sun is seen at the horizon from the surface of the earth than from its centre.
const PARALLAX: f64 = 0.002_44;

/// What the sun does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SolarEvent {
    /// The sun rises to 18 degrees below the horizon.
    DawnAstronomical,
    /// The sun rises to 12 degrees below the horizon.
    DawnNautical,
    /// The sun rises to 6 degrees below the horizon.
    DawnCivil,
    /// The edge of the sun rises to 34 minutes below the horizon, where refraction shows it.
    Sunrise,
    /// The sun stands highest.
    SolarNoon,
    /// The edge of the sun sets.
    Sunset,
    /// The sun sets to 6 degrees below the horizon.
    DuskCivil,
    /// The sun sets to 12 degrees below the horizon.
    DuskNautical,
    /// The sun sets to 18 degrees below the horizon.
    DuskAstronomical,
}

/// Which way an event goes through its height.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Up,
    Top,
    Down,
}

impl SolarEvent {
    /// All of them, in the order of a day.
    pub const ALL: [Self; 9] = [
        Self::DawnAstronomical,
        Self::DawnNautical,
        Self::DawnCivil,
        Self::Sunrise,
        Self::SolarNoon,
        Self::Sunset,
        Self::DuskCivil,
        Self::DuskNautical,
        Self::DuskAstronomical,
    ];

    /// Celery's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DawnAstronomical => "dawn_astronomical",
            Self::DawnNautical => "dawn_nautical",
            Self::DawnCivil => "dawn_civil",
            Self::Sunrise => "sunrise",
            Self::SolarNoon => "solar_noon",
            Self::Sunset => "sunset",
            Self::DuskCivil => "dusk_civil",
            Self::DuskNautical => "dusk_nautical",
            Self::DuskAstronomical => "dusk_astronomical",
        }
    }

    fn way(self) -> Way {
        match self {
            Self::DawnAstronomical | Self::DawnNautical | Self::DawnCivil | Self::Sunrise => {
                Way::Up
            }
            Self::SolarNoon => Way::Top,
            Self::Sunset | Self::DuskCivil | Self::DuskNautical | Self::DuskAstronomical => {
                Way::Down
            }
        }
    }

    /// The height of the sun's centre, in degrees (`celery/schedules.py` 5.7.0 `solar._horizons`).
    fn height(self, distance: f64) -> f64 {
        match self {
            Self::DawnAstronomical | Self::DuskAstronomical => -18.0,
            Self::DawnNautical | Self::DuskNautical => -12.0,
            Self::DawnCivil | Self::DuskCivil => -6.0,
            Self::Sunrise | Self::Sunset => -34.0 / 60.0 - HALF_DISC / distance,
            Self::SolarNoon => 0.0,
        }
    }
}

impl fmt::Display for SolarEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for SolarEvent {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        Self::ALL.into_iter().find(|event| event.as_str() == text).ok_or_else(|| {
            let text: String = text.chars().take(40).collect();
            let names = Self::ALL.map(Self::as_str).join(", ");
            ScheduleError::new(format!("{text:?} is no event of the sun; write one of {names}"))
        })
    }
}

/// Celery's `solar`: an event of the sun at a place, at sea level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solar {
    event: SolarEvent,
    latitude: f64,
    longitude: f64,
}

impl Solar {
    /// An event at a latitude (north is positive) and a longitude (east is positive), in degrees.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn new(event: SolarEvent, latitude: f64, longitude: f64) -> Result<Self, ScheduleError> {
        let check = |name: &str, value: f64, max: f64| {
            if value.is_finite() && value.abs() <= max {
                return Ok(());
            }
            let text =
                format!("{name} {value} is out of range; write degrees from -{max} to {max}");
            Err(ScheduleError::new(text))
        };
        check("lat", latitude, 90.0)?;
        check("lon", longitude, 180.0)?;
        Ok(Self { event, latitude, longitude })
    }

    /// The event.
    pub fn event(&self) -> SolarEvent {
        self.event
    }

    /// North is positive, in degrees.
    pub fn latitude(&self) -> f64 {
        self.latitude
    }

    /// East is positive, in degrees.
    pub fn longitude(&self) -> f64 {
        self.longitude
    }

    /// The first occurrence after `after`; `None` if there is none in [`SEARCH_DAYS_MAX`] days.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let today = self.day_of(after);
        let mut days = today - 1..=today + SEARCH_DAYS_MAX;
        let instant = |day| Timestamp::from_second(self.on(day)?).ok();
        days.find_map(|day| instant(day).filter(|found| *found > after))
    }

    /// The last occurrence at or before `at`; `None` if there was none in [`SEARCH_DAYS_MAX`] days.
    pub fn previous(&self, at: Timestamp) -> Option<Timestamp> {
        let today = self.day_of(at);
        let mut days = (today - SEARCH_DAYS_MAX..=today + 1).rev();
        let instant = |day| Timestamp::from_second(self.on(day)?).ok();
        days.find_map(|day| instant(day).filter(|found| *found <= at))
    }

    /// The day of this place that an instant lies in, from one lowest point of the sun to the next,
    /// counted from 2000-01-01.
    fn day_of(&self, at: Timestamp) -> i64 {
        let since = (second_of(at) as f64 - J2000) / DAY;
        (since + 0.5 + self.longitude / DEGREES_A_DAY).floor() as i64
    }

    /// When the event happens on a day, in seconds since the epoch.
    fn on(&self, day: i64) -> Option<i64> {
        let mean_noon = day as f64 * DAY - self.longitude / DEGREES_A_DAY * DAY;
        let noon = self.culmination(mean_noon, 0.0);
        let way = self.event.way();
        let (mut low, mut high) = match way {
            Way::Top => return Some((J2000 + noon).round() as i64),
            Way::Up => (self.culmination(mean_noon - DAY / 2.0, 180.0), noon),
            Way::Down => (self.culmination(mean_noon + DAY / 2.0, 180.0), noon),
        };
        if self.height_over(low) >= 0.0 || self.height_over(high) < 0.0 {
            return None;
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if self.height_over(middle) < 0.0 { low = middle } else { high = middle }
        }
        Some((J2000 + high).round() as i64)
    }

    /// When the sun stands at an hour angle (0: highest, 180: lowest), near a guess. All times are in
    /// seconds since 2000-01-01 12:00 UTC.
    fn culmination(&self, guess: f64, angle: f64) -> f64 {
        let mut at = guess;
        for _ in 0..3 {
            let sun = Sun::at(at);
            let error =
                (sun.hour_angle(at, self.longitude) - angle + 540.0).rem_euclid(360.0) - 180.0;
            at -= error / DEGREES_A_DAY * DAY;
        }
        at
    }

    /// How far the sun stands above the height of the event, in degrees.
    fn height_over(&self, at: f64) -> f64 {
        let sun = Sun::at(at);
        let latitude = self.latitude.to_radians();
        let declination = sun.declination.to_radians();
        let hour_angle = sun.hour_angle(at, self.longitude).to_radians();
        let sine = latitude.sin() * declination.sin()
            + latitude.cos() * declination.cos() * hour_angle.cos();
        let height = sine.clamp(-1.0, 1.0).asin();
        height.to_degrees() - PARALLAX * height.cos() - self.event.height(sun.distance)
    }
}

/// Where the sun stands, seen from the centre of the earth. In degrees.
struct Sun {
    right_ascension: f64,
    declination: f64,
    /// In astronomical units.
    distance: f64,
}

impl Sun {
    /// `at` is in seconds since 2000-01-01 12:00 UTC; that atomic clocks are a minute ahead moves the sun
    /// by less than it is wrong.
    fn at(at: f64) -> Self {
        let centuries = at / DAY / 36_525.0;
        let mean_longitude = 280.466_46 + centuries * (36_000.769_83 + centuries * 0.000_303_2);
        let anomaly =
            (357.529_11 + centuries * (35_999.050_29 - centuries * 0.000_153_7)).to_radians();
        let eccentricity =
            0.016_708_634 - centuries * (0.000_042_037 + centuries * 0.000_000_126_7);
        let centre = (1.914_602 - centuries * (0.004_817 + centuries * 0.000_014)) * anomaly.sin()
            + (0.019_993 - centuries * 0.000_101) * (2.0 * anomaly).sin()
            + 0.000_289 * (3.0 * anomaly).sin();
        let true_anomaly = anomaly + centre.to_radians();
        let distance = 1.000_001_018 * (1.0 - eccentricity * eccentricity)
            / (1.0 + eccentricity * true_anomaly.cos());
        // Aberration and nutation.
        let node = (125.04 - 1934.136 * centuries).to_radians();
        let longitude = (mean_longitude + centre - 0.005_69 - 0.004_78 * node.sin()).to_radians();
        let obliquity = (23.439_291 - centuries * 0.013_004_2 + 0.002_56 * node.cos()).to_radians();
        Self {
            right_ascension: (obliquity.cos() * longitude.sin())
                .atan2(longitude.cos())
                .to_degrees(),
            declination: (obliquity.sin() * longitude.sin()).asin().to_degrees(),
            distance,
        }
    }

    /// How far the earth has turned since the sun stood highest, 0 to 360 degrees.
    fn hour_angle(&self, at: f64, longitude: f64) -> f64 {
        let sidereal = 280.460_618_37 + 360.985_647_366_29 * (at / DAY);
        (sidereal + longitude - self.right_ascension).rem_euclid(360.0)
    }
}
