"""The words that a challenge adds to a passage and a query: what people ask of assistants, in many ways.

``{}`` stands for a topic. A finite list can be learned, and a prover that learns it knows more of a challenge
than it should; it is the model's own queries and the passages that don't repeat.
"""

from __future__ import annotations

from typing import Final

QUESTIONS: Final = (
    "What is {}?",
    "What does {} mean?",
    "Can you explain {} to me?",
    "How does {} work?",
    "Tell me about {}.",
    "I keep hearing about {}. What is it?",
    "Explain {} like I'm five.",
    "What should I know about {}?",
    "Why is {} important?",
    "Do you know anything about {}?",
    "Give me a quick overview of {}.",
    "What is the difference between {} and the alternatives?",
    "I need help with {}.",
    "Could you tell me how {} is used in practice?",
)
"""What somebody wants to know."""

WISHES: Final = (
    *QUESTIONS,
    "Write a short story about {}.",
    "Write a poem about {}.",
    "Write an email to my team about {}.",
    "Write a blog post about {}.",
    "Give me five ideas for a talk about {}.",
    "List the pros and cons of {}.",
    "Make a list of ten facts about {}.",
    "Create a quiz with three questions on {}.",
    "Help me plan a lesson on {}.",
    "What are some good books about {}?",
    "Suggest a title for an article about {}.",
    "Write a tweet about {}.",
    "Write a dialogue between two friends who talk about {}.",
    "Give me an example of {} from everyday life.",
    "Who came up with {}?",
    "What are common mistakes people make with {}?",
    "Hi! I have to give a presentation on {} tomorrow. Where do I start?",
    "I'm new to {}. What should I learn first?",
    "Explain {} in simple terms and give an example.",
    "Write a product description that mentions {}.",
    "Please write a formal letter that complains about {}.",
    "Give me a step by step guide to {}.",
    "What is your opinion on {}?",
    "Tell me a joke about {}.",
    "Describe {} in one paragraph.",
    "Write a limerick about {}.",
    "How would you teach {} to a child?",
    "Is {} worth it?",
)
"""What somebody wants to have, or to know."""

ABOUT_TEXT: Final = (
    "Summarize this.",
    "Summarize the following in one sentence.",
    "Can you rewrite this so that it is easier to understand?",
    "Explain this to me.",
    "What does this mean?",
    "Translate this into Spanish.",
    "Translate to French.",
    "Please translate the following text into German.",
    "Fix the grammar.",
    "Make this shorter.",
    "Make it sound more friendly.",
    "What are the key points?",
    "Turn this into bullet points.",
    "Write a title for this text.",
    "Proofread this.",
    "Rewrite this in a formal tone.",
    "Paraphrase this paragraph.",
    "Give me three questions that this text answers.",
    "Continue this text.",
    "Is this correct?",
    "Expand on this.",
    "Give an example of what is described here.",
)
"""What somebody wants done with a text."""

FOLLOW_UPS: Final = (
    "Can you give me an example?",
    "Can you explain that in simpler words?",
    "Thanks! Could you make it shorter?",
    "Why is that?",
    "Tell me more.",
    "Go on.",
    "Are you sure?",
    "What else should I know?",
    "I don't understand. Can you say it differently?",
    "How do I do that?",
    "Ok, and what could go wrong?",
    "Write that as a list.",
    "Can you elaborate on the last part?",
    "Thank you. What would you recommend?",
    "Where can I read more about it?",
    "Summarize that for me.",
)
"""What somebody says to an answer."""

COMMON_WORDS: Final = frozenset(
    """
    about above after again against allow allows along already also although always among another anything
    around arguments because become becomes been before behavior being below between both called calling
    cannot cause certain change changed check class could default defined different directly doesn does
    doing done during each either else ensure even every everything example except exist exists expected false
    first following follows from further given gives have having hence here however https ignored inside instead into
    itself just know least like longer made make makes making many might more most much must need needed never
    none normally nothing number object objects often once only other others otherwise over part passed
    possible provided provides raise raised raises rather really return returned returning returns same second
    should shall similar simply since some something specified still such support take taken takes than that
    their them then there therefore these they thing things think this those though three through thus true
    type types under unless until upon used useful user uses using usually value values very want well were
    what when where whether which while whole whose will with within without would wouldn wrong your
    """.split()  # noqa: SIM905 - a list of words reads better as text
)
"""Words of five letters and more, and some others, that say nothing of a text's topic."""
