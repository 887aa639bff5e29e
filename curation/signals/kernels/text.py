"""The text signals of a batch in one pass over its bytes, and repetition by hash tables.

Comes in: the UTF-8 bytes of all documents in a row with their offsets, as Arrow keeps them. Goes out: rows of `counts`
and `shares` in the order of `COUNTS` and `SHARES`, NaN where there is no value. Lines end at LF, CR LF or CR; a byte
that continues a character has no length of its own. Lines and words are compared by 64-bit FNV-1a hashes.

N-grams need one table lookup for each n-gram whose two parts both repeat: an n-gram occurs twice only if both
(n-1)-grams in it do, so the candidates dwindle with n, and each is named by the pair of its parts.

Price: 6 to 7 ns a byte, and 1 to 3 for the n-grams. Memory: 40 bytes a line of the longest document, 2 MB for n-grams.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from ...compiled import compiled

COUNTS = (
    "character_count", "line_count", "max_line_length", "word_count", "longest_token_length", "control_character_count",
    "nul_count", "median_line_length", "p90_line_length", "carriage_returns",
)  # fmt: skip
SHARES = (
    "mean_line_length", "blank_line_fraction", "duplicate_line_fraction", "mixed_indentation_fraction",
    "mean_word_length", "alphabetic_fraction", "alphanumeric_fraction", "digit_fraction", "whitespace_fraction",
    "non_ascii_fraction", "replacement_fraction",
    "top_2gram_fraction", "top_3gram_fraction", "top_4gram_fraction",
    "duplicate_5gram_fraction", "duplicate_6gram_fraction", "duplicate_7gram_fraction", "duplicate_8gram_fraction",
    "duplicate_9gram_fraction", "duplicate_10gram_fraction",
    "distinct_word_fraction", "top_word_fraction", "top_two_word_fraction", "word_entropy", "uppercase_word_fraction",
    "hexadecimal_word_fraction", "ellipsis_line_fraction", "link_fraction",
)  # fmt: skip

_TOP_GRAM = SHARES.index("top_2gram_fraction")
_DISTINCT = SHARES.index("distinct_word_fraction")
_HISTOGRAM = 2048  # line lengths up to here are counted; quantiles of longer ones are found by sorting those few

# Kinds of bytes: white space first, so that one comparison finds it.
_BLANK, _LF, _CR, _VISIBLE, _CONTROL, _LEAD, _CONTINUATION = range(7)
# What a word holds.
_UPPER, _LOWER, _DIGIT, _HEX, _X, _COLON, _SLASH, _W, _DOT, _OPEN, _CLOSE = (1 << bit for bit in range(11))
_LETTER = _UPPER | _LOWER
_TAG = _OPEN | _CLOSE


def _kind(byte: int) -> int:
    if byte >= 0x80:
        return _CONTINUATION if byte < 0xC0 else _LEAD
    named = {ord("\n"): _LF, ord("\r"): _CR} | dict.fromkeys(b" \t\f\v", _BLANK)
    return named.get(byte, _CONTROL if byte < 0x20 or byte == 0x7F else _VISIBLE)


def _marks(byte: int) -> int:
    marks = {":": _COLON, "/": _SLASH, "w": _W, "W": _W, ".": _DOT, "<": _OPEN, ">": _CLOSE, "x": _X, "X": _X}
    character = chr(byte) if byte < 0x80 else " "
    return (
        marks.get(character, 0)
        | (_UPPER if character.isupper() else 0)
        | (_LOWER if character.islower() else 0)
        | (_DIGIT if character.isdigit() else 0)
        | (_HEX if character in "abcdefABCDEF" else 0)
    )


def _folded(byte: int) -> int:
    """Words are compared without case and punctuation; 0 leaves a byte out."""
    return byte if byte >= 0x80 else ord(chr(byte).lower()) if chr(byte).isalnum() else 0


_KINDS = np.array([_kind(byte) for byte in range(256)], dtype=np.uint8)
# Two numbers for each byte, so that one pass needs few instructions: its folded form and what it marks a word with;
# ASCII letters in the low half and digits in the high half of a sum.
_FOLDED, _MARKED = np.uint64(0xFF), np.uint64(8)
_FORMS = np.array([_folded(byte) | _marks(byte) << 8 for byte in range(256)], dtype=np.uint64)
_SUMS = np.array(
    [(1 if _marks(byte) & _LETTER else 0) | (1 << 32 if _marks(byte) & _DIGIT else 0) for byte in range(256)],
    dtype=np.uint64,
)
_ENDS_URL = np.array([byte <= 0x20 or byte == 0x7F or byte in b"\"'<>`\\" for byte in range(256)], dtype=np.bool_)
_READ_MORE = np.frombuffer(b"read more", dtype=np.uint8)
_SEED, _PRIME, _SPREAD = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3), np.uint64(0x9E3779B97F4A7C15)
_ZERO, _ONE, _HALF, _LOW = np.uint64(0), np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)

_Bytes = nb.types.Array(nb.uint8, 1, "C", readonly=True)
_Offsets = nb.types.Array(nb.int64, 1, "C", readonly=True)
_Int, _Hashes, _Numbers, _Table, _Shares = nb.int64, nb.uint64[::1], nb.int64[::1], nb.int64[:, ::1], nb.float64[:, ::1]


@compiled(nb.int64(_Bytes, nb.int64, nb.int64))
def _characters(data: Any, start: int, end: int) -> int:
    count = 0
    for i in range(start, end):
        count += (data[i] & 0xC0) != 0x80
    return count


@compiled(nb.boolean(nb.uint8))
def _is_word_byte(byte: int) -> bool:
    return (48 <= byte <= 57) or (65 <= byte <= 90) or (97 <= byte <= 122) or byte == 95 or byte >= 0x80


@compiled(nb.boolean(nb.uint8))
def _is_hex(byte: int) -> bool:
    return (48 <= byte <= 57) or (65 <= byte <= 70) or (97 <= byte <= 102)


@compiled(nb.int64(_Bytes, nb.int64, nb.int64))
def _hexadecimal(data: Any, start: int, end: int) -> int:
    """Bytes of the word's runs of letters and digits that are hexadecimal numbers."""
    total = 0
    i = start
    while i < end:
        if not _is_word_byte(data[i]):
            i += 1
            continue
        first = i
        while i < end and _is_word_byte(data[i]):
            i += 1
        digits = first
        if data[first] == 48 and i - first > 2 and (data[first + 1] | 0x20) == 120:
            digits = first + 2
        has_digit = has_letter = False
        all_hex = True
        for j in range(digits, i):
            all_hex &= _is_hex(data[j])
            if data[j] <= 57:
                has_digit = True
            else:
                has_letter = True
        if all_hex and (digits > first or (i - first >= 4 and has_digit and has_letter)):
            total += i - first
    return total


@compiled(nb.boolean(_Bytes, nb.int64, nb.int64, nb.int64))
def _has_scheme(data: Any, start: int, colon: int, length: int) -> Any:
    """Whether http, https or ftp, as `length` tells, stands before the colon and no letter or digit before that."""
    first = colon - length
    if first < start or (first > start and _is_word_byte(data[first - 1])):
        return False
    if length == 3:
        return (data[first] | 32) == 102 and (data[first + 1] | 32) == 116 and (data[first + 2] | 32) == 112
    http = (data[first] | 32) == 104 and (data[first + 1] | 32) == 116 and (data[first + 2] | 32) == 116
    http &= (data[first + 3] | 32) == 112
    return http and (length == 4 or (data[first + 4] | 32) == 115)


@compiled(nb.int64(_Bytes, nb.int64, nb.int64))
def _links(data: Any, start: int, end: int) -> int:
    """Characters of a line in URLs and in tags; a URL inside a tag counts once."""
    total = inside = 0
    opened = -1
    i = start
    while i < end:
        byte = data[i]
        url = -1
        if byte == 58 and i + 3 < end and data[i + 1] == 47 and data[i + 2] == 47:
            for length in (4, 5, 3):
                if url < 0 and _has_scheme(data, start, i, length):
                    url = i - length
        elif (
            (byte | 32) == 119 and i + 4 < end and data[i + 3] == 46 and (i == start or not _is_word_byte(data[i - 1]))
        ):
            if (data[i + 1] | 32) == 119 and (data[i + 2] | 32) == 119:
                url = i
        elif byte == 60 and i + 1 < end:
            after = data[i + 1]
            is_tag = 65 <= (after & 0xDF) <= 90 or after in (33, 47, 63)
            opened, inside = (i, 0) if is_tag else (-1, 0)
        elif byte == 62 and opened >= 0:
            total += _characters(data, opened, i + 1) - inside
            opened = -1
        i += 1
        if url >= 0:
            while i < end and not _ENDS_URL[data[i]]:
                i += 1
            inside += _characters(data, url, i)
            total += _characters(data, url, i)
    return total


@compiled(nb.boolean(_Bytes, nb.int64, nb.int64))
def _trails_off(data: Any, start: int, end: int) -> Any:
    """Whether a line ends in three points, an ellipsis or "read more", a closing bracket aside."""
    while end > start and data[end - 1] in (41, 62, 93):
        end -= 1
    if end - start < 3:
        return False
    if data[end - 1] == 46:
        return data[end - 2] == 46 and data[end - 3] == 46
    if data[end - 1] == 0xA6:
        return data[end - 2] == 0x80 and data[end - 3] == 0xE2
    if end - start < len(_READ_MORE):
        return False
    same = 0
    for j in range(len(_READ_MORE)):
        same += (data[end - len(_READ_MORE) + j] | 0x20) == _READ_MORE[j]
    return same == len(_READ_MORE)


@compiled(nb.int64(nb.int64))
def _slots(entries: int) -> int:
    size = 64
    while size < 2 * entries:
        size *= 2
    return size


@compiled(nb.int64(_Hashes, nb.int64, _Hashes))
def _distinct(hashes: Any, count: int, table: Any) -> int:
    """How many different hashes; 0 is none of them."""
    size = _slots(count)
    table[:size] = _ZERO
    mask = np.uint64(size - 1)
    distinct = 0
    for k in range(count):
        value = hashes[k]
        slot = ((value * _SPREAD) >> _HALF) & mask
        while table[slot] != value:
            if table[slot] == _ZERO:
                table[slot] = value
                distinct += 1
                break
            slot = (slot + _ONE) & mask
    return distinct


@compiled(nb.void(_Int, _Hashes, _Numbers, _Hashes, *[_Numbers] * 3, _Table, _Table, _Shares, _Int))
def _repetition(
    count: int, words: Any, lengths: Any, keys: Any, names: Any, positions: Any, parts: Any,
    occurrences: Any, firsts: Any, shares: Any, row: int,
) -> None:  # fmt: skip
    """Word and n-gram shares of one document into column `row` of `shares`.

    `words` are hashes; `keys` and `names` are the hash table, the rest is room for at least `count` numbers.
    """
    total = 0
    for k in range(count):
        total += lengths[k]
        positions[k] = k
    candidates = count
    repeats = 0
    for n in range(1, 11):
        new, old = n & 1, 1 - (n & 1)
        size = _slots(candidates)
        names[:size] = -1
        mask = np.uint64(size - 1)
        found = kept = 0
        covered = repeated = 0
        for k in range(candidates):
            position = positions[k]
            if n == 1:
                key = words[k]
            else:
                if k + 1 == candidates or positions[k + 1] != position + 1:
                    continue
                if occurrences[old, parts[k]] < 2 or occurrences[old, parts[k + 1]] < 2:
                    continue
                key = (np.uint64(parts[k]) << _HALF) | np.uint64(parts[k + 1])
            slot = ((key * _SPREAD) >> _HALF) & mask
            while names[slot] >= 0 and keys[slot] != key:
                slot = (slot + _ONE) & mask
            name = names[slot]
            if name < 0:
                name = found
                found += 1
                keys[slot], names[slot] = key, name
                occurrences[new, name] = 1
                firsts[new, name] = position
            else:
                occurrences[new, name] += 1
                repeats += 1
                if n >= 5:
                    for j in range(max(position, covered), position + n):
                        repeated += lengths[j]
                    covered = position + n
            parts[kept], positions[kept] = name, position
            kept += 1
        candidates = kept
        if n == 1:
            first = second = 0
            entropy = 0.0
            for name in range(found):
                often = occurrences[new, name]
                if often > first:
                    first, second = often, first
                elif often > second:
                    second = often
                if often > 1:
                    entropy += often * np.log(often)
            if count:
                shares[_DISTINCT, row] = found / count
                shares[_DISTINCT + 1, row] = first / count
                shares[_DISTINCT + 2, row] = (first + second) / count
                shares[_DISTINCT + 3, row] = max(np.log(count) - entropy / count, 0.0)
        elif n <= 4:
            best = -1
            for name in range(found):
                if occurrences[new, name] > 1 and (best < 0 or occurrences[new, name] > occurrences[new, best]):
                    best = name
            share = 0.0
            if best >= 0:
                characters = 0
                for j in range(firsts[new, best], firsts[new, best] + n):
                    characters += lengths[j]
                share = min(characters * occurrences[new, best] / total, 1.0)
            shares[_TOP_GRAM + n - 2, row] = share
        else:
            shares[_TOP_GRAM + n - 2, row] = repeated / total if total else 0.0


@compiled(nb.int64(nb.int64[::1], _Bytes, nb.int64, nb.int64, nb.int64))
def _quantile(histogram: Any, data: Any, start: int, end: int, rank: int) -> int:
    """The `rank`-th shortest line, from 1; lines beyond the histogram are measured again and sorted."""
    seen = 0
    for length in range(_HISTOGRAM):
        seen += histogram[length]
        if seen >= rank:
            return length
    long = np.empty((end - start) // _HISTOGRAM + 1, dtype=np.int64)
    found = length = 0
    for i in range(start, end + 1):
        if i == end or data[i] == 10 or (data[i] == 13 and not (i + 1 < end and data[i + 1] == 10)):
            if length >= _HISTOGRAM:
                long[found] = length
                found += 1
            length = 0
        elif data[i] != 13:
            length += (data[i] & 0xC0) != 0x80
    return int(np.sort(long[:found])[rank - seen - 1])


@compiled(nb.void(_Bytes, _Offsets, _Bytes, nb.int64, _Table, _Shares))
def measure(data: Any, offsets: Any, alphabetic: Any, ngram_bytes: int, counts: Any, shares: Any) -> None:
    """Fill `counts` and `shares`, a column for each document, from the bytes between `offsets`.

    `alphabetic` tells which code points are letters; n-grams are of words that begin in the first `ngram_bytes`.
    """
    documents = len(offsets) - 1
    most_lines = most_bytes = 0
    for row in range(documents):
        ends = 0
        for i in range(offsets[row], offsets[row + 1]):
            ends += data[i] == 10
            ends += data[i] == 13
        most_lines = max(most_lines, ends + 1)
        most_bytes = max(most_bytes, offsets[row + 1] - offsets[row])
    line_hashes = np.empty(most_lines, dtype=np.uint64)
    line_table = np.empty(_slots(most_lines), dtype=np.uint64)
    most_words = min(most_bytes, ngram_bytes) // 2 + 1
    words = np.empty(most_words, dtype=np.uint64)
    lengths = np.empty(most_words, dtype=np.int64)
    keys = np.empty(_slots(most_words), dtype=np.uint64)
    names = np.empty(_slots(most_words), dtype=np.int64)
    positions = np.empty(most_words, dtype=np.int64)
    parts = np.empty(most_words, dtype=np.int64)
    occurrences = np.empty((2, most_words), dtype=np.int64)
    firsts = np.empty((2, most_words), dtype=np.int64)
    histogram = np.empty(_HISTOGRAM, dtype=np.int64)

    for row in range(documents):
        start, end = offsets[row], offsets[row + 1]
        if start == end:
            counts[:, row] = 0
            shares[:, row] = np.nan
            continue
        histogram[:] = 0
        hashes_end = start + ngram_bytes
        # Bytes that are no character of their own: continuations, and the CR of each CR LF.
        without = returns = 0
        letters = controls = nuls = beyond = replacements = 0
        sums = word_sums = _ZERO
        word_start, word_without, word_beyond = start, 0, 0
        word_form, word_hash = _ZERO, _SEED
        word_count = visible = longest_word = uppercase = hexadecimal = stored = 0
        line_start, line_first = start, 0
        line_hash, line_visible, line_end = _SEED, 0, start
        line_marks: Any = 0
        has_url = False
        lines = line_ends = blank = longest_line = hashed = tabs = spaces = ellipses = linked = 0
        for i in range(start, end + 1):
            # A word or a line that reaches the end of the document ends there as if white space came.
            byte = data[i] if i < end else np.uint8(10)
            kind = _KINDS[byte]
            if kind >= _VISIBLE:
                line_hash = (line_hash ^ np.uint64(byte)) * _PRIME
                form = _FORMS[byte]
                folded = form & _FOLDED
                word_hash = (word_hash ^ folded) * _PRIME if folded != _ZERO else word_hash
                word_form |= form
                sums += _SUMS[byte]
                if kind == _VISIBLE:
                    continue
                if kind == _CONTINUATION:
                    without += 1
                elif kind == _CONTROL:
                    controls += 1
                    nuls += byte == 0
                else:
                    beyond += 1
                    point = 0
                    if byte < 0xE0 and i + 1 < end:
                        point = ((byte & 0x1F) << 6) | (data[i + 1] & 0x3F)
                    elif byte < 0xF0 and i + 2 < end:
                        point = ((byte & 0x0F) << 12) | ((data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F)
                    elif i + 3 < end:
                        point = ((byte & 0x07) << 18) | ((data[i + 1] & 0x3F) << 12)
                        point |= ((data[i + 2] & 0x3F) << 6) | (data[i + 3] & 0x3F)
                    replacements += point == 0xFFFD
                    if point < len(alphabetic):
                        letters += alphabetic[point]
                continue
            if i > word_start:
                length = i - word_start - (without - word_without)
                line_visible += i - word_start
                word_marks: Any = np.int64(word_form >> _MARKED)
                word_count += 1
                visible += length
                longest_word = max(longest_word, length)
                uppercase += (word_marks & _LETTER) == _UPPER
                if word_marks & _DIGIT and word_marks & (_HEX | _X):
                    hexadecimal += _hexadecimal(data, word_start, i)
                if (word_marks & _COLON and word_marks & _SLASH) or (word_marks & _W and word_marks & _DOT):
                    has_url = True
                if word_hash != _SEED and word_start < hashes_end and stored < most_words:
                    ascii_ones = sums - word_sums
                    words[stored] = word_hash
                    lengths[stored] = np.int64((ascii_ones & _LOW) + (ascii_ones >> _HALF)) + beyond - word_beyond
                    stored += 1
                line_end = i
                line_marks |= word_marks
                word_form, word_hash, word_sums, word_beyond = _ZERO, _SEED, sums, beyond
            word_start, word_without = i + 1, without
            if kind == _BLANK:
                continue
            if kind == _CR and i + 1 < end and data[i + 1] == 10:
                without += 1
                returns += 1
                word_without = without
                continue
            if i == end and line_start == end:
                break
            place = i - start - without
            length = place - line_first
            lines += 1
            line_ends += i < end
            returns += kind == _CR
            longest_line = max(longest_line, length)
            if length < _HISTOGRAM:
                histogram[length] += 1
            if line_start + 1 < end:
                tabs += data[line_start] == 9
                spaces += data[line_start] == 32 and data[line_start + 1] == 32
            if line_visible == 0:
                blank += 1
            else:
                if line_visible > 2:
                    line_hashes[hashed] = line_hash if line_hash != _ZERO else _ONE
                    hashed += 1
                if has_url or (line_marks & _TAG) == _TAG:
                    linked += _links(data, line_start, line_end)
                ellipses += _trails_off(data, line_start, line_end)
            line_start, line_first = i + 1, place + 1
            line_marks, line_hash, line_visible = 0, _SEED, 0
            has_url = False

        digits = np.int64(sums >> _HALF)
        all_letters = np.int64(sums & _LOW) + letters
        count = end - start - without
        counts[0, row] = count
        counts[1, row] = lines
        counts[2, row] = longest_line
        counts[3, row] = word_count
        counts[4, row] = longest_word
        counts[5, row] = controls
        counts[6, row] = nuls
        counts[7, row] = _quantile(histogram, data, start, end, (lines + 1) // 2)
        counts[8, row] = _quantile(histogram, data, start, end, (9 * lines + 9) // 10)
        counts[9, row] = returns
        shares[:, row] = np.nan
        shares[0, row] = (count - line_ends) / lines
        shares[1, row] = blank / lines
        shares[2, row] = 1 - _distinct(line_hashes, hashed, line_table) / hashed if hashed else 0.0
        shares[3, row] = min(tabs, spaces) / (tabs + spaces) if tabs + spaces else 0.0
        if word_count:
            shares[4, row] = visible / word_count
            shares[_DISTINCT + 4, row] = uppercase / word_count
            shares[_DISTINCT + 5, row] = hexadecimal / visible
        shares[5, row] = all_letters / count
        shares[6, row] = (all_letters + digits) / count
        shares[7, row] = digits / count
        shares[8, row] = (count - visible) / count
        shares[9, row] = beyond / count
        shares[10, row] = replacements / count
        shares[_DISTINCT + 6, row] = ellipses / lines
        shares[_DISTINCT + 7, row] = linked / count
        _repetition(stored, words, lengths, keys, names, positions, parts, occurrences, firsts, shares, row)
