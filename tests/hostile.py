"""Names that a stranger may give to what becomes a file."""

NAMES = (
    *("", ".", "..", "../x", "../../x", "a/../../x", "a/b", "/x", "/etc/x", "//x"),
    *("..%2Fx", "%2E%2E%2Fx", "a%00b", "%", "..\\x", "a\\..\\..\\x", "C:\\x", "C:x", "\\\\?\\x"),
    *("con", "NUL", "aux.kernel", "com1", "Lpt9.x.y", "con .x", "a.", "a ", " a", "...", "a:b"),
    *(".hidden", "-rf", "~", "~root", "$HOME", "*", "a|b", "a;b", '"', "`x`"),
    *("a\0b", "a\nb", "a\rb", "a\x1b[2J", "a\x7fb", "\u202ea", "\u2028", "\ud800", "a\udcffb"),
    *("\u2215x", "\uff0e\uff0e\uff0fx", "\uff23on", "e\u0301", "x" * 300, "\U0001f600" * 64),
)
SOUND = ("a", "0", "Conv_0.kernel", "mlp~w", "two words", "a-b", "COM", "nullable", "_", "x" * 200)
