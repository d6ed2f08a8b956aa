"""What an evaluation tells people and programs: facts as JSON, Markdown, and one page with charts and photos."""
