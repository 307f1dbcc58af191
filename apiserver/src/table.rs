//! Server-side printing: the columns and cells behind `as=Table`, which is what `kubectl get` shows.
//!
//! Upstream: `printers` and `meta/v1 Table`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

/// A table cell: string, integer, or null.
pub type Cell = serde_json::Value;

/// The definition of a table column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`…
    pub r#type: &'static str,
    /// `name` for the Name column, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A string column that is always shown.
    pub const fn string(name: &'static str, description: &'static str) -> Self {
        Self { name, r#type: "string", format: "", description, priority: 0 }
    }

    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { name, r#type: "integer", format: "", description, priority: 0 }
    }

    /// The same column, shown only with `-o wide`.
    pub const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }
}

/// The first column of every table.
pub const NAME: Column = Column {
    name: "Name",
    r#type: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically.",
    priority: 0,
};

/// The age column of most tables.
pub const AGE: Column = Column::string("Age", "Time since the object was created, by the server's clock.");

/// The columns of a resource that defines none.
pub const DEFAULT_COLUMNS: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        r#type: "date",
        format: "",
        description: "When the server created the object, in RFC 3339 form and UTC.",
        priority: 0,
    },
];

/// The row for [`DEFAULT_COLUMNS`].
pub fn default_row(meta: &ObjectMeta, _now: Timestamp) -> Vec<Cell> {
    vec![
        Cell::from(meta.name.clone().unwrap_or_default()),
        meta.creation_timestamp.as_ref().map_or(Cell::Null, |time| Cell::from(time.0.to_string())),
    ]
}

/// The age of something, as kubectl shows it; `<unknown>` when unset.
pub fn age(since: Option<&Time>, now: Timestamp) -> Cell {
    Cell::from(since.map_or_else(
        || "<unknown>".to_owned(),
        |time| human_duration(now.as_second().saturating_sub(time.0.as_second())),
    ))
}

/// `duration.HumanDuration`: about two or three significant figures (`45s`, `3m12s`, `25m`, `5h3m`, `2d4h`, `40d`, `2y30d`).
pub fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        two(hours / 24, "d", hours % 24, "h")
    } else if hours < 24 * 365 * 2 {
        format!("{}d", hours / 24)
    } else if hours < 24 * 365 * 8 {
        two(hours / 24 / 365, "y", (hours / 24) % 365, "d")
    } else {
        format!("{}y", hours / 24 / 365)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_shows_them() {
        for (seconds, want) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (5 * 3600 + 180, "5h3m"),
            (8 * 3600, "8h"),
            (48 * 3600, "2d"),
            (52 * 3600, "2d4h"),
            (8 * 24 * 3600, "8d"),
            (365 * 24 * 3600, "365d"),
            (2 * 365 * 24 * 3600 + 30 * 24 * 3600, "2y30d"),
            (9 * 365 * 24 * 3600, "9y"),
        ] {
            assert_eq!(human_duration(seconds), want, "{seconds}");
        }
    }
}
