//! [`Terminal`]: the screen and the keys. The terminal is as it was before when this goes away.

use std::io::{self, Write, stdout};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{self, ClearType};
use crossterm::{cursor, execute, queue, style};
use tokio::sync::mpsc;

/// How often the keyboard is looked at for the end of the demo.
const LOOK: Duration = Duration::from_millis(100);
/// Key strokes that may wait to be taken; more are dropped.
const KEYS: usize = 16;

/// A key that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Take the function down or up.
    Outage,
    /// Stop publishing and account.
    Quit,
}

/// See the module's documentation.
pub(super) struct Terminal {
    keys: mpsc::Receiver<Key>,
}

impl Terminal {
    /// Takes the screen over.
    pub(super) fn open() -> io::Result<Terminal> {
        terminal::enable_raw_mode()?;
        let (sender, keys) = mpsc::channel(KEYS);
        // From here on, dropping restores.
        let terminal = Terminal { keys };
        execute!(stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        std::thread::Builder::new().name("demo-keys".to_owned()).spawn(move || read_keys(&sender))?;
        Ok(terminal)
    }

    /// Shows a frame in place of the last one, cut to the screen.
    pub(super) fn show(&self, frame: &str) -> io::Result<()> {
        let (columns, rows) = terminal::size()?;
        let mut out = stdout().lock();
        queue!(out, cursor::MoveTo(0, 0))?;
        for line in frame.lines().take(usize::from(rows)) {
            let line: String = line.chars().take(usize::from(columns)).collect();
            queue!(
                out,
                style::Print(line),
                terminal::Clear(ClearType::UntilNewLine),
                cursor::MoveToNextLine(1)
            )?;
        }
        queue!(out, terminal::Clear(ClearType::FromCursorDown))?;
        out.flush()
    }

    /// The next key. Never comes once the keyboard is gone.
    pub(super) async fn key(&mut self) -> Key {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // There is nobody to tell if the terminal is gone.
        let _ = execute!(stdout(), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// Reads keys until nobody wants them.
fn read_keys(keys: &mpsc::Sender<Key>) {
    while !keys.is_closed() {
        match event::poll(LOOK) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(_) => return,
        }
        let Ok(Event::Key(pressed)) = event::read() else { continue };
        if pressed.kind != KeyEventKind::Press {
            continue;
        }
        let interrupt =
            pressed.code == KeyCode::Char('c') && pressed.modifiers.contains(KeyModifiers::CONTROL);
        let key = match pressed.code {
            KeyCode::Char('o') => Key::Outage,
            KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
            _ if interrupt => Key::Quit,
            _ => continue,
        };
        // A full channel means that somebody leans on the keyboard.
        let _ = keys.try_send(key);
    }
}
