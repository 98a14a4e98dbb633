//! How the records of tracepoints' events are laid out: tracefs tells.

use std::fs;

/// Where tracefs may be mounted.
pub const MOUNTED: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Where in an event's record a field is, in bytes; `None` where there is no such field, or no
/// tracefs to tell.
#[must_use]
pub fn field_offset(category: &str, name: &str, field: &str) -> Option<u32> {
    let format = MOUNTED.iter().find_map(|mounted| {
        fs::read_to_string(format!("{mounted}/events/{category}/{name}/format")).ok()
    })?;
    in_format(&format, field)
}

/// Finds a field in the text of a `format` file, of which a line is
/// `field:unsigned long index;offset:24;size:8;signed:0;`, with tabs after the semicolons.
fn in_format(format: &str, field: &str) -> Option<u32> {
    format.lines().find_map(|line| {
        let (declaration, rest) = line.trim().strip_prefix("field:")?.split_once(';')?;
        let name = declaration.rsplit(' ').next()?.split('[').next()?;
        if name != field {
            return None;
        }
        let offset = rest.trim().strip_prefix("offset:")?.split(';').next()?;
        offset.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::in_format;

    #[test]
    fn fields_are_found_by_name() {
        let format = "name: block_bio_queue\nID: 1227\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
            \tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n\
            \tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;\n\
            \tfield:char rwbs[10];\toffset:28;\tsize:10;\tsigned:0;\n";
        assert_eq!(in_format(format, "nr_sector"), Some(24));
        assert_eq!(in_format(format, "rwbs"), Some(28));
        assert_eq!(in_format(format, "sector"), None);
    }
}
