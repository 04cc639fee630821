"""Real text to refine: what Python's library says of itself, and a declaration in a dozen languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from targon.oracle import StandardLibraryText
from targon.oracle.ports import Document
from targon.protocol.primitives import Digest

ENGLISH = tuple(
    passage.text
    for index in range(1_500)
    for passage in [StandardLibraryText().passage((index << 64) // 1_500)]
)
"""Every third passage of the library or so, as another filter chose them."""

PROSE = (
    "The river bends twice before it reaches the mill, and in the autumn the whole valley fills with a white mist. "
    "Nobody who lives there minds it, for the road along the hill stays dry until the first snow."
)
"""It passes. What is embedded in it is what a refusal is for."""

DECLARATION = {
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geist der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
    "coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de "
    "consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en "
    "geweten, en behoren zich jegens elkander in een geest van broederschap te gedragen.",
    "sv": "Alla människor är födda fria och lika i värde och rättigheter. De är utrustade med förnuft och samvete och "
    "bör handla gentemot varandra i en anda av broderskap.",
    "da": "Alle mennesker er født frie og lige i værdighed og rettigheder. De er udstyret med fornuft og samvittighed, "
    "og de bør handle mod hverandre i en broderskabets ånd.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i "
    "sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    "fi": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu järki ja "
    "omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä.",
    "la": "Gallia est omnis divisa in partes tres, quarum unam incolunt Belgae, aliam Aquitani, tertiam qui ipsorum "
    "lingua Celtae, nostra Galli appellantur.",
}
"""The first article, as the United Nations publish it; in Latin, Caesar."""


class Texts:
    """A source of texts in memory: each character as likely as each other."""

    name = "texts"

    def __init__(self, *texts: str, draws: int | None = None) -> None:
        self.texts = texts
        self.draws = draws
        self.closed = False

    @property
    def counts(self) -> Mapping[str, int]:
        return {"corrupt": 2}

    def close(self) -> None:
        self.closed = True

    def manifest(self) -> Digest:
        return Digest("ab" * 32)

    def documents(self, random: Random) -> Iterator[Document]:
        lengths = [len(text) for text in self.texts]
        drawn = 0
        while self.draws is None or drawn < self.draws:
            (place,) = random.choices(range(len(self.texts)), lengths)
            yield Document(self.texts[place], f"text {place}", random.random())
            drawn += 1


def book(passages: int, start: int = 0) -> str:
    """So many passages of real text, in paragraphs of several."""
    chosen = ENGLISH[start : start + passages]
    return "\n\n".join(" ".join(chosen[at : at + 4]) for at in range(0, len(chosen), 4))
