//! Draws what `top` knows. Bold and reversed text only, so that it can be read without colours.

use super::state::{Section, Top};
use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize as _;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};

/// Blanks between two columns.
const GAP: u16 = 2;

const KEYS: &str = "q quit   sort queues: n name  r ready  s scheduled  l leased  d dead";

/// Draws a frame.
pub(super) fn draw(frame: &mut Frame<'_>, top: &Top, now: Timestamp) {
    let head = top.head(now);
    let sections = top.sections(now);
    let mut heights = vec![Constraint::Length(head.len() as u16)];
    heights.extend(shares(frame.area().height.saturating_sub(head.len() as u16 + 1), &sections));
    heights.push(Constraint::Length(1));
    let areas = Layout::vertical(heights).split(frame.area());
    frame.render_widget(
        Paragraph::new(head.into_iter().map(Line::from).collect::<Vec<_>>()),
        areas[0],
    );
    for (section, area) in sections.iter().zip(&areas[1..]) {
        draw_section(frame, section, *area);
    }
    frame.render_widget(Line::from(KEYS).reversed(), areas[areas.len() - 1]);
}

/// Gives each table the lines that it needs where there is room, and else the same to all that need more.
fn shares(height: u16, sections: &[Section]) -> Vec<Constraint> {
    // A blank line, the title, the header, and a row at least.
    let wants: Vec<u16> =
        sections.iter().map(|one| 3 + one.rows.len().clamp(1, 1000) as u16).collect();
    let mut given = vec![0; wants.len()];
    let mut left = height;
    while left > 0 && given.iter().zip(&wants).any(|(given, wants)| given < wants) {
        for (given, wants) in given.iter_mut().zip(&wants) {
            if left > 0 && *given < *wants {
                *given += 1;
                left -= 1;
            }
        }
    }
    given[wants.len() - 1] += left;
    given.into_iter().map(Constraint::Length).collect()
}

fn draw_section(frame: &mut Frame<'_>, section: &Section, area: Rect) {
    let parts =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Fill(1)]);
    let [_, title, body] = parts.areas(area);
    let room = usize::from(body.height.saturating_sub(1));
    let hidden = section.rows.len().saturating_sub(room);
    let more = if hidden > 0 { format!(", {hidden} not shown") } else { String::new() };
    frame.render_widget(Line::from(format!("{}{more}", section.title)).bold(), title);
    if section.rows.is_empty() {
        frame.render_widget(Line::from(section.empty), body);
        return;
    }
    let rows = section.rows.iter().map(|cells| Row::new(cells.iter().map(String::as_str)));
    let header = Row::new(section.header.iter().copied()).bold();
    let table = Table::new(rows, widths(section, body.width));
    let table = table.column_spacing(GAP).header(header);
    frame.render_widget(table, body);
}

/// Each column is as wide as what stands in it; where the line ends, the last ones are cut.
fn widths(section: &Section, mut room: u16) -> Vec<Constraint> {
    let mut widths = Vec::new();
    for (at, name) in section.header.iter().enumerate() {
        let cells = section.rows.iter().filter_map(|row| row.get(at));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
        let width = (widest.max(name.len()) as u16).min(room);
        room = room.saturating_sub(width + GAP);
        widths.push(Constraint::Length(width));
    }
    widths
}

#[cfg(test)]
mod tests;
