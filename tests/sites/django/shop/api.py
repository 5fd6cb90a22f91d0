"""The site's API: who somebody is, by bearer token and by HTTP Basic."""

from rest_framework.authentication import BasicAuthentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_simplejwt.authentication import JWTAuthentication


class Me(APIView):
    """By token."""

    authentication_classes = [JWTAuthentication]
    permission_classes = [IsAuthenticated]

    def get(self, request):
        return Response({"user": request.user.get_username()})


class BasicMe(Me):
    """By name and password."""

    authentication_classes = [BasicAuthentication]
