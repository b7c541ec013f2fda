//! A link as a QR code of half blocks.

use std::io::{IsTerminal, stderr};

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::{console::Console, terminal};

/// Rows of a terminal that the text around a QR code needs.
const TEXT_ROWS: usize = 12;

/// Prints a text as a QR code: always if `wanted`, else if the terminal has room for it.
pub(super) fn print(text: &str, wanted: bool, console: &Console) {
    let Some(lines) = render(text) else {
        if wanted {
            console.note("the link is too long for a QR code");
        }
        return;
    };
    let (columns, rows) = terminal::size();
    let width = lines.iter().map(|line| line.chars().count()).max();
    let fits = width.is_some_and(|width| width <= columns) && lines.len() + TEXT_ROWS <= rows;
    if wanted || (stderr().is_terminal() && !console.is_quiet() && fits) {
        console.line(&lines.join("\n"));
    }
}

/// Returns the lines of a QR code; None if the text is too long. Light modules are drawn and dark
/// ones are left out, as a terminal with a dark background needs it; scanners read the inverse,
/// too.
fn render(text: &str) -> Option<Vec<String>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let image = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build();
    Some(image.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_with_half_blocks_in_a_light_frame() {
        let lines = render("qshare:2,abc").unwrap();
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width));
        assert!(width.abs_diff(2 * lines.len()) <= 1, "{width}");
        // Two rows of the quiet zone.
        assert!(lines[0].chars().all(|block| block == '█'));
        assert!(lines.iter().any(|line| line.contains('▀')));
        assert_eq!(render(&"x".repeat(10_000)), None);
    }
}
