import subprocess
import sys


def test_importing_the_choices_does_not_import_pydantic():
    """The core imports them, and each command that only prints help would load pydantic."""
    code = "import sys, pg_bronze.settings.choices; sys.exit('pydantic' in sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True)
