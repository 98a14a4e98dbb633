//! The drawing of the flows of data, once for wide screens and once for narrow ones.

use super::flow::{Flow, Kind, Lane};
use crate::{
    recording::Unit,
    report::{
        html::{escaped, svg_text},
        units::{amount, counted},
    },
};

/// Where things are in the drawing, from left to right.
struct Layout {
    class: &'static str,
    width: usize,
    disk: [usize; 2],
    middle: [usize; 2],
    user: [usize; 2],
    /// Whether a lane's name is above it, rather than at its left.
    names_above: bool,
    titles: [&'static str; 3],
}

const WIDE: Layout = Layout {
    class: "wide",
    width: 1040,
    disk: [100, 190],
    middle: [460, 580],
    user: [900, 1040],
    names_above: false,
    titles: ["disk", "page cache", "user memory"],
};

const NARROW: Layout = Layout {
    class: "narrow",
    width: 360,
    disk: [0, 42],
    middle: [138, 202],
    user: [318, 360],
    names_above: true,
    titles: ["disk", "page cache", "user"],
};

/// Height of the boxes' titles, and of a lane's name above it.
const TITLE: usize = 34;
const NAME: usize = 22;
/// Space between lanes.
const GAP: usize = 14;
/// How thick the thickest arrow is, and the thinnest, in tenths.
const THICKEST: u64 = 260;
const THINNEST: u64 = 15;
/// Height of an arrow's label.
const LABEL: usize = 17;

/// Draws the lanes; empty if there are none.
pub(super) fn draw(lanes: &[Lane]) -> String {
    if lanes.is_empty() {
        return "<p class=\"absent\">0 B: no file data was moved in this run.</p>\n".into();
    }
    let flows = || {
        let lanes = lanes.iter();
        lanes.flat_map(|lane| lane.disk.iter().chain(&lane.user).chain(&lane.past))
    };
    let largest = flows().filter_map(|flow| flow.bytes).max().unwrap_or(0);
    let notes = notes(lanes);
    let mut out = String::new();
    for layout in [&WIDE, &NARROW] {
        out += &drawn(layout, lanes, largest, &notes);
    }
    out += "<p class=\"quiet\">";
    if largest > 0 {
        out += &format!(
            "An arrow is as thick as its bytes are many: the thickest is {}; what would be thinner \
             than a line is drawn as one. ",
            escaped(&bytes(largest))
        );
    }
    out += "A dashed line is a true 0. Mapped bytes (hatched) become visible to the program where \
            they are: they are not moved.</p>\n";
    if !notes.is_empty() {
        out += "<ol class=\"notes\" aria-label=\"Not measured\">\n";
        for note in &notes {
            let note = format!(
                "{} of {}: {}",
                note.label,
                note.paths.join(", "),
                note.reason
            );
            out += &format!("<li>{}</li>\n", escaped(&note));
        }
        out += "</ol>\n";
    }
    out
}

/// Why something was not measured, said once for all paths.
struct Note<'a> {
    label: &'static str,
    reason: &'a str,
    paths: Vec<&'static str>,
}

fn notes(lanes: &[Lane]) -> Vec<Note<'_>> {
    let mut notes: Vec<Note<'_>> = Vec::new();
    for lane in lanes {
        for flow in lane.disk.iter().chain(&lane.user).chain(&lane.past) {
            let Some(reason) = flow.reason.as_deref() else {
                continue;
            };
            let label = flow.measure.label();
            let path = lane.path.name();
            match notes.iter_mut().find(|note| note.is_of(flow)) {
                Some(note) if note.paths.contains(&path) => {}
                Some(note) => note.paths.push(path),
                None => notes.push(Note {
                    label,
                    reason,
                    paths: vec![path],
                }),
            }
        }
    }
    notes
}

impl Note<'_> {
    fn is_of(&self, flow: &Flow) -> bool {
        self.label == flow.measure.label() && flow.reason.as_deref() == Some(self.reason)
    }
}

fn bytes(value: u64) -> String {
    match value {
        0 => "0 B".into(),
        value => amount(value, Unit::Bytes).to_string(),
    }
}

/// Tenths of a unit of the drawing.
fn thickness(bytes: Option<u64>, largest: u64) -> u64 {
    let bytes = u128::from(bytes.unwrap_or(0)) * u128::from(THICKEST);
    u64::try_from(bytes / u128::from(largest.max(1)))
        .unwrap_or(THICKEST)
        .max(THINNEST)
}

fn drawn(layout: &Layout, lanes: &[Lane], largest: u64, notes: &[Note<'_>]) -> String {
    let mut body = String::new();
    let mut top = TITLE;
    for lane in lanes {
        if top > TITLE {
            body += &format!(
                "<line class=\"rule\" x1=\"0\" x2=\"{}\" y1=\"{top}\" y2=\"{top}\"/>\n",
                layout.width
            );
        }
        top += GAP / 2;
        if layout.names_above {
            body += &svg_text(0, top + 15, "start", "path", lane.path.name());
            top += NAME;
        }
        let arrows = Arrows {
            layout,
            largest,
            notes,
        };
        let (past, past_end) = arrows.draw(&lane.past, layout.disk[1], layout.user[0], top);
        let (disk, disk_end) = arrows.draw(&lane.disk, layout.disk[1], layout.middle[0], past_end);
        let (user, user_end) = arrows.draw(&lane.user, layout.middle[1], layout.user[0], past_end);
        let bottom = past_end.max(disk_end).max(user_end).max(top + LABEL + 8);
        body += &past;
        body += &disk;
        body += &user;
        if !layout.names_above {
            body += &svg_text(0, (top + bottom) / 2 + 5, "start", "path", lane.path.name());
        }
        if !lane.middle.is_empty() {
            let [left, right] = layout.middle;
            // Not over an arrow that passes by.
            let from = if lane.past.is_empty() { top } else { past_end };
            body += &svg_text(
                (left + right) / 2,
                (from + bottom) / 2 + 4,
                "middle",
                "small",
                lane.middle,
            );
        }
        top = bottom + GAP / 2;
    }
    let boxes: String = [layout.disk, layout.middle, layout.user]
        .into_iter()
        .zip(layout.titles)
        .zip(["disk", "cache", "user"])
        .map(|(([left, right], title), class)| {
            // Narrow boxes at the edges have titles that begin or end with them.
            let anchor = match (left, right) {
                (0, _) => ("start", 0),
                (_, right) if right == layout.width && layout.names_above => ("end", right),
                _ => ("middle", (left + right) / 2),
            };
            format!(
                "<rect class=\"box {class}\" x=\"{left}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\"/>{}",
                right - left,
                top - TITLE + 4,
                svg_text(anchor.1, 20, anchor.0, "title", title),
                y = TITLE - 4,
            )
        })
        .collect();
    let (class, width) = (layout.class, layout.width);
    let height = top + 2;
    format!(
        "<svg class=\"flow {class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{}\">\n\
         <defs><pattern id=\"hatch-{class}\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><rect class=\"hatch\" width=\"3\" height=\"6\"/></pattern></defs>\n\
         {boxes}{body}</svg>\n",
        escaped(&told(lanes)),
    )
}

/// The drawing in words.
fn told(lanes: &[Lane]) -> String {
    let mut words = String::from("Where the data went.");
    for lane in lanes {
        words += &format!(" {}:", lane.path.name());
        let parts = [
            ("between disk and kernel", &lane.disk),
            ("between disk and program", &lane.past),
            ("between kernel and program", &lane.user),
        ];
        let parts = parts.into_iter().flat_map(|(place, flows)| {
            flows.iter().map(move |flow| {
                let amount = flow.bytes.map_or("not measured".into(), bytes);
                format!(" {place} {amount} {}", flow.verb)
            })
        });
        words += &parts.collect::<Vec<_>>().join(",");
        words += ".";
    }
    words
}

struct Arrows<'a> {
    layout: &'a Layout,
    largest: u64,
    notes: &'a [Note<'a>],
}

impl Arrows<'_> {
    /// Draws `flows` one below the other, from `top` on; and where they end.
    fn draw(&self, flows: &[Flow], left: usize, right: usize, mut top: usize) -> (String, usize) {
        let mut out = String::new();
        for flow in flows {
            let tenths = thickness(flow.bytes, self.largest);
            let head = (tenths / 10) as usize / 2 + 5;
            out += &self.label(flow, left, right, top);
            let middle = top + LABEL + head;
            if flow.kind == Kind::Inside {
                top += LABEL + 4;
                continue;
            }
            out += &self.arrow(flow, left, right, middle, tenths);
            top = middle + head + 4;
        }
        (out, top)
    }

    fn label(&self, flow: &Flow, left: usize, right: usize, top: usize) -> String {
        let text = match flow.bytes {
            Some(value) => format!("{} {}", bytes(value), flow.verb),
            None if self.layout.names_above && flow.faults > 0 => {
                counted(flow.faults, "fault", "faults")
            }
            None if self.layout.names_above => format!("{}: ?", flow.verb),
            None if flow.faults > 0 => {
                let faults = counted(flow.faults, "fault", "faults");
                format!("{faults}; {} bytes: not measured", flow.verb)
            }
            None => format!("{}: not measured", flow.verb),
        };
        let text = match self.note(flow) {
            Some(number) => format!("{text} [{number}]"),
            None => text,
        };
        let class = match flow.bytes {
            None | Some(0) => "label quiet",
            Some(_) => "label",
        };
        let middle = (left + right) / 2;
        let label = svg_text(middle, top + 12, "middle", class, &text);
        match &flow.reason {
            Some(reason) => format!("<g><title>{}</title>{label}</g>\n", escaped(reason)),
            None => label,
        }
    }

    fn note(&self, flow: &Flow) -> Option<usize> {
        Some(self.notes.iter().position(|note| note.is_of(flow))? + 1)
    }

    fn arrow(&self, flow: &Flow, left: usize, right: usize, y: usize, tenths: u64) -> String {
        let class = match (flow.bytes, flow.kind) {
            (None, _) => "unknown",
            (Some(0), _) => "zero",
            (Some(_), Kind::Mapped) => "mapped",
            (Some(_), _) => "moved",
        };
        if matches!(flow.bytes, None | Some(0)) {
            return format!(
                "<line class=\"{class}\" x1=\"{left}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\"/>\n"
            );
        }
        let fill = match flow.kind {
            Kind::Mapped => format!(" fill=\"url(#hatch-{})\"", self.layout.class),
            _ => String::new(),
        };
        // In tenths, as a polygon: the shaft, and a head at the end or at both.
        let [left, right, y] = [left, right, y].map(|place| place as i64 * 10);
        let half = tenths as i64 / 2;
        let head = half + 45;
        let length = head.min(120);
        let mut points = Vec::new();
        if flow.kind == Kind::Right || flow.kind == Kind::Both {
            let neck = right - length;
            points.extend([(neck, y - half), (neck, y - head), (right, y)]);
            points.extend([(neck, y + head), (neck, y + half)]);
        } else {
            points.extend([(right, y - half), (right, y + half)]);
        }
        if flow.kind == Kind::Left || flow.kind == Kind::Both {
            let neck = left + length;
            points.extend([(neck, y + half), (neck, y + head), (left, y)]);
            points.extend([(neck, y - head), (neck, y - half)]);
        } else {
            points.extend([(left, y + half), (left, y - half)]);
        }
        let points = points
            .iter()
            .map(|&(x, y)| format!("{},{}", tenth(x), tenth(y)));
        format!(
            "<polygon class=\"{class}\"{fill} points=\"{}\"/>\n",
            points.collect::<Vec<_>>().join(" ")
        )
    }
}

fn tenth(tenths: i64) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}
