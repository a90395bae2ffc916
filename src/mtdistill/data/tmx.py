"""Translation memories (TMX 1.1 to 1.4b), as a stream of sentence pairs.

The parser reports to a collector that keeps one translation unit, so memory does not grow with the file, its nesting or
its compression. Entity declarations are refused; the usual ``<!DOCTYPE tmx SYSTEM "tmx14.dtd">`` is read over and never
fetched. The encoding is the one the XML declares: UTF-8, UTF-16 or one of 8 bits. Imported by data.readers; imports
data.cleaning, data.languages and data.text_files.
"""

from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from mtdistill.data.cleaning import Pair
from mtdistill.data.languages import find_languages
from mtdistill.data.text_files import MAX_LINE_BYTES, file_error, opened

_CHUNK_BYTES = 2**16
_MAX_DEPTH = 100  # of nested elements; TMX has about 8
_VARIANT_SIZE = 100  # characters that a variant counts for beside its text, so that empty ones end as well
_MAX_SHOWN_LANGUAGES = 8
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# Elements inside a segment whose content is formatting code of some program, not text.
_CODES = frozenset({"bpt", "ept", "it", "ph", "ut"})


def read_tmx(path: Path, source_lang: str, target_lang: str) -> Iterator[Pair]:
    """The units that have both languages, first variant of each; other units are passed over.

    Raises:
        DataError: not well-formed XML, entity declarations, an oversized unit, or no unit with both languages.
    """
    collector = _Collector()
    parser = DefusedXMLParser(target=collector)
    position = parser.parser  # the parser lets go of it when it is closed
    seen: dict[str, None] = {}
    is_empty, received_bytes = True, 0
    with opened(path) as stream:
        for chunk in chain(iter(partial(stream.read, _CHUNK_BYTES), b""), [b""]):
            _feed(parser, chunk, path)
            received_bytes += len(chunk)
            # A tag or comment that does not end is held back by the parser and never reaches the collector.
            held_back = received_bytes - position.CurrentByteIndex if chunk else 0
            if max(collector.size, held_back) > MAX_LINE_BYTES or collector.depth > _MAX_DEPTH:
                raise file_error(
                    path,
                    position.CurrentLineNumber,
                    en=f"got a unit of more than {MAX_LINE_BYTES} characters or {_MAX_DEPTH} nested elements, accepted "
                    "sentences. Check that this is a translation memory.",
                    zh=f"翻译单元超过 {MAX_LINE_BYTES} 个字符或 {_MAX_DEPTH} 层嵌套，应为句子。请确认这是翻译记忆库。",
                )
            for unit in collector.take():
                if languages := find_languages(unit, source_lang, target_lang):
                    is_empty = False
                    yield Pair(unit[languages[0]], unit[languages[1]])
                elif len(seen) < _MAX_SHOWN_LANGUAGES:
                    seen.update(dict.fromkeys(unit))
    if is_empty:
        found = ", ".join(seen)
        raise file_error(
            path,
            en=f"got no unit with both languages (found: {found or 'none'}), accepted {source_lang} and {target_lang}. "
            "Check data.source_lang and data.target_lang.",
            zh=f"没有同时含两种语言的翻译单元（找到：{found or '无'}），需要 {source_lang} 和 {target_lang}。"
            "请检查 data.source_lang 和 data.target_lang。",
        )


def _feed(parser: DefusedXMLParser, chunk: bytes, path: Path) -> None:
    """Parse one more piece of the file; an empty one ends it."""
    try:
        if chunk:
            parser.feed(chunk)
        else:
            parser.close()
    except DefusedXmlException as error:
        raise file_error(
            path,
            parser.parser.CurrentLineNumber,
            en="got an entity declaration, accepted TMX without any, because they can be made to fill the memory or to "
            "read other files. Delete the declaration if you trust the file.",
            zh="得到实体声明；实体可能耗尽内存或读取其他文件，因此只接受不含实体声明的 TMX。"
            "如果信任该文件，请删除声明。",
        ) from error
    except (ParseError, LookupError, ValueError) as error:  # the last two: an encoding that expat does not know
        raise file_error(
            path,
            parser.parser.ErrorLineNumber,
            en=f"got XML that is not well-formed ({error}), accepted TMX in UTF-8 or UTF-16. Repair the line; if the "
            f"text is in another encoding, convert it (iconv -f GB18030 -t UTF-8 ...) and declare UTF-8.",
            zh=f"XML 格式有误（{error}），应为 UTF-8 或 UTF-16 的 TMX。请修复该行；若文本是其他编码，"
            "请转换（iconv -f GB18030 -t UTF-8 ...）并声明为 UTF-8。",
        ) from error


class _Collector:
    """What the parser reports to: holds the unit being read, and the finished ones until they are taken."""

    def __init__(self) -> None:
        self.depth = 0
        self.size = 0
        self._finished: list[dict[str, str]] = []
        self._unit: dict[str, str] = {}
        self._lang: str | None = None
        self._text: list[str] | None = None
        self._code_depth = 0

    def take(self) -> list[dict[str, str]]:
        """The units finished since the last call: text by language."""
        finished, self._finished = self._finished, []
        return finished

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        name = tag.rpartition("}")[2]
        if self._text is not None:
            if name in _CODES or self._code_depth:
                self._code_depth += 1
        elif name == "tuv":
            self._lang = attributes.get(_XML_LANG, attributes.get("lang"))
        elif name == "seg":
            self._text = []

    def end(self, tag: str) -> None:
        self.depth -= 1
        name = tag.rpartition("}")[2]
        if self._text is not None:
            if self._code_depth:
                self._code_depth -= 1
            elif name == "seg":
                if self._lang is not None:
                    self._unit.setdefault(self._lang, "".join(self._text))
                    self.size += _VARIANT_SIZE + len(self._lang)
                self._text = None
        elif name == "tuv":
            self._lang = None
        elif name == "tu":
            self._finished.append(self._unit)
            self._unit, self.size = {}, 0

    def data(self, text: str) -> None:
        if self._text is not None and not self._code_depth:
            self._text.append(text)
            self.size += len(text)

    def close(self) -> None:
        """Nothing is built."""
