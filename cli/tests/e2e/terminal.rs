//! A pseudoterminal for tests.

/// A terminal on which a test types and reads.
pub(crate) struct Terminal {
    keyboard: std::fs::File,
    shown: String,
}

impl Terminal {
    /// Opens a terminal. Returns it with the descriptor of its other side.
    pub(crate) fn open() -> (Self, std::fs::File) {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let side = openpt(flags).unwrap();
        grantpt(&side).unwrap();
        unlockpt(&side).unwrap();
        let name = ptsname(&side, Vec::new()).unwrap();
        let other =
            std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let terminal = Self { keyboard: side.into(), shown: String::new() };
        terminal.resize(30, 100);
        (terminal, other)
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.keyboard, size).unwrap();
    }

    pub(crate) fn press(&mut self, keys: &str) {
        std::io::Write::write_all(&mut self.keyboard, keys.as_bytes()).unwrap();
    }

    /// Reads until `text` appears after the previously expected text.
    pub(crate) fn expect(&mut self, text: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !self.shown.contains(text) {
            assert!(std::time::Instant::now() < deadline, "{text:?} in {:?}", self.shown);
            let mut ready =
                [rustix::event::PollFd::new(&self.keyboard, rustix::event::PollFlags::IN)];
            let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            if rustix::event::poll(&mut ready, Some(&second)).unwrap() == 0 {
                continue;
            }
            let mut buffer = [0; 4096];
            // Reading fails once the other side is closed.
            let read = std::io::Read::read(&mut self.keyboard, &mut buffer).unwrap_or(0);
            assert!(read > 0, "the terminal was closed after {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        let end = self.shown.find(text).unwrap() + text.len();
        self.shown.drain(..end);
    }
}
