"""What an ad server needs: which group a user is in, and which picture the group is shown. Standard library alone."""
